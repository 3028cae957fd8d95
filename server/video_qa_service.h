#pragma once

#include "server/ask_replay.h"
#include "server/server_core.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa {

/// Every method with raw bytes; see raw_message.h.
using RawVideoQaService = v1::VideoQaService::WithRawCallbackMethod_Ask<
    v1::VideoQaService::WithRawCallbackMethod_AskStream<
        v1::VideoQaService::WithRawCallbackMethod_Estimate<
            v1::VideoQaService::WithRawCallbackMethod_CreateSession<
                v1::VideoQaService::WithRawCallbackMethod_AppendToSession<
                    v1::VideoQaService::WithRawCallbackMethod_GetSession<
                        v1::VideoQaService::WithRawCallbackMethod_DeleteSession<
                            v1::VideoQaService::WithRawCallbackMethod_AskMany<
                                v1::VideoQaService::Service>>>>>>>>;

/// videonsa.v1.VideoQaService. Threads: gRPC's; no method waits.
class VideoQaService : public RawVideoQaService {
 public:
  explicit VideoQaService(ServerCore& core)
      : core_(core), replay_(core.options.replay_ttl, core.options.replay_bytes, core.clock) {}

  grpc::ServerUnaryReactor* Ask(grpc::CallbackServerContext* context,
                                const grpc::ByteBuffer* request,
                                grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* AskStream(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Estimate(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* CreateSession(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* AppendToSession(grpc::CallbackServerContext* context,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* DeleteSession(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* AskMany(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request) override;

 private:
  ServerCore& core_;
  AskReplay replay_;
};

}  // namespace videonsa
