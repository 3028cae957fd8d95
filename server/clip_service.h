#pragma once

#include "server/server_core.h"
#include "videonsa/v1/clip.grpc.pb.h"

namespace videonsa {

/// Every method with raw bytes; see raw_message.h.
using RawClipService = v1::ClipService::WithRawCallbackMethod_StartUpload<
    v1::ClipService::WithRawCallbackMethod_UploadClip<
        v1::ClipService::WithRawCallbackMethod_QueryUpload<
            v1::ClipService::WithRawCallbackMethod_AbortUpload<
                v1::ClipService::WithRawCallbackMethod_ImportClip<
                    v1::ClipService::WithRawCallbackMethod_GetClip<
                        v1::ClipService::WithRawCallbackMethod_ListClips<
                            v1::ClipService::WithRawCallbackMethod_WatchClip<
                                v1::ClipService::WithRawCallbackMethod_DeleteClip<
                                    v1::ClipService::Service>>>>>>>>>;

/// videonsa.v1.ClipService. Threads: gRPC's; disk work runs on ServerCore::disk.
class ClipService : public RawClipService {
 public:
  explicit ClipService(ServerCore& core);

  grpc::ServerUnaryReactor* StartUpload(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* UploadClip(grpc::CallbackServerContext* context,
                                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* QueryUpload(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* AbortUpload(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ImportClip(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetClip(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListClips(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchClip(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* DeleteClip(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;

 private:
  ServerCore& core_;
  const Gauge uploads_active_;
};

}  // namespace videonsa
