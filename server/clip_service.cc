#include "server/clip_service.h"

#include "runtime/base/error.h"
#include "server/unary_call.h"
#include "server/upload_call.h"
#include "server/watch_call.h"

namespace videonsa {
namespace {

// A stored clip is of use to a server that will go on: no new uploads while it drains.
absl::Status RefuseWhileDraining(const ServerCore& core) {
  const ServerState state = core.state();
  if (state == ServerState::kLoading || state == ServerState::kReady) return absl::OkStatus();
  return core.Admit().status();
}

}  // namespace

ClipService::ClipService(ServerCore& core)
    : core_(core),
      uploads_active_(core.metrics.AddGauge("videonsa_uploads_active", "Open upload streams.")) {}

grpc::ServerUnaryReactor* ClipService::StartUpload(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return ServeUnary<v1::StartUploadRequest>(
      core_, Method::kStartUpload, &core_.disk, context, request, response,
      [this](const CallContext& call,
             const v1::StartUploadRequest& in) -> absl::StatusOr<v1::StartUploadResponse> {
        if (absl::Status status = RefuseWhileDraining(core_); !status.ok()) return status;
        return core_.clips.StartUpload(call.tenant, in);
      });
}

grpc::ServerReadReactor<grpc::ByteBuffer>* ClipService::UploadClip(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* response) {
  return new UploadCall(core_, *context, response, uploads_active_);
}

grpc::ServerUnaryReactor* ClipService::QueryUpload(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return ServeUnary<v1::QueryUploadRequest>(
      core_, Method::kQueryUpload, &core_.disk, context, request, response,
      [this](const CallContext& call,
             const v1::QueryUploadRequest& in) -> absl::StatusOr<v1::QueryUploadResponse> {
        absl::StatusOr<UploadState> state = core_.clips.Query(call.tenant, in.upload_id());
        if (!state.ok()) return state.status();
        v1::QueryUploadResponse out;
        out.set_committed_size(state->committed_bytes);
        out.set_complete(state->complete);
        return out;
      });
}

grpc::ServerUnaryReactor* ClipService::AbortUpload(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return ServeUnary<v1::AbortUploadRequest>(
      core_, Method::kAbortUpload, &core_.disk, context, request, response,
      [this](const CallContext& call,
             const v1::AbortUploadRequest& in) -> absl::StatusOr<v1::AbortUploadResponse> {
        if (absl::Status status = core_.clips.Abort(call.tenant, in.upload_id()); !status.ok()) {
          return status;
        }
        return v1::AbortUploadResponse();
      });
}

grpc::ServerUnaryReactor* ClipService::ImportClip(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return ServeUnary<v1::ImportClipRequest>(
      core_, Method::kImportClip, &core_.disk, context, request, response,
      [this](const CallContext& call,
             const v1::ImportClipRequest& in) -> absl::StatusOr<v1::ImportClipResponse> {
        if (absl::Status status = RefuseWhileDraining(core_); !status.ok()) return status;
        return core_.importer.Import(call.tenant, in);
      });
}

grpc::ServerUnaryReactor* ClipService::GetClip(grpc::CallbackServerContext* context,
                                               const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  return ServeUnary<v1::GetClipRequest>(
      core_, Method::kGetClip, nullptr, context, request, response,
      [this](const CallContext& call,
             const v1::GetClipRequest& in) -> absl::StatusOr<v1::GetClipResponse> {
        absl::StatusOr<v1::Clip> clip = core_.clips.Get(call.tenant, in.name());
        if (!clip.ok()) return clip.status();
        v1::GetClipResponse out;
        *out.mutable_clip() = *std::move(clip);
        return out;
      });
}

grpc::ServerUnaryReactor* ClipService::ListClips(grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  return ServeUnary<v1::ListClipsRequest>(
      core_, Method::kListClips, nullptr, context, request, response,
      [this](const CallContext& call, const v1::ListClipsRequest& in) {
        return core_.clips.List(call.tenant, in);
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ClipService::WatchClip(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return new WatchCall(core_, *context, *request);
}

grpc::ServerUnaryReactor* ClipService::DeleteClip(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return ServeUnary<v1::DeleteClipRequest>(
      core_, Method::kDeleteClip, &core_.disk, context, request, response,
      [this](const CallContext& call,
             const v1::DeleteClipRequest& in) -> absl::StatusOr<v1::DeleteClipResponse> {
        const absl::Status status = core_.clips.Delete(call.tenant, in.name());
        if (!status.ok() && !(in.allow_missing() && absl::IsNotFound(status))) return status;
        return v1::DeleteClipResponse();
      });
}

}  // namespace videonsa
