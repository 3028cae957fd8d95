#include "server/video_qa_service.h"

#include "server/ask_call.h"
#include "server/ask_many_call.h"
#include "server/ask_setup.h"
#include "server/ask_stream_call.h"
#include "server/result_conversion.h"
#include "server/session_call.h"
#include "server/status_conversion.h"
#include "server/unary_call.h"

namespace videonsa {
grpc::ServerUnaryReactor* VideoQaService::Ask(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return new AskCall(core_, replay_, *context, *request, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* VideoQaService::AskStream(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return new AskStreamCall(core_, *context, *request);
}

grpc::ServerUnaryReactor* VideoQaService::Estimate(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return ServeUnary<v1::EstimateRequest>(
      core_, Method::kEstimate, &core_.probing, context, request, response,
      [this](const CallContext& call,
             const v1::EstimateRequest& in) -> absl::StatusOr<v1::EstimateResponse> {
        absl::StatusOr<PreparedQuestion> prepared = PrepareQuestion(core_, call, in.question());
        if (!prepared.ok()) return prepared.status();
        if (prepared->needs_fetch) {
          return InvalidField("question", "names a url; import it first and name the clip");
        }
        absl::StatusOr<EstimateResult> result =
            prepared->runtime->Estimate(prepared->parsed.request);
        if (!result.ok()) return result.status();
        return ToProto(*result);
      });
}

grpc::ServerUnaryReactor* VideoQaService::CreateSession(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return SessionCall::Create(core_, replay_, *context, *request, response);
}

grpc::ServerUnaryReactor* VideoQaService::AppendToSession(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  return SessionCall::Append(core_, *context, *request, response);
}

grpc::ServerUnaryReactor* VideoQaService::GetSession(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return ServeUnary<v1::GetSessionRequest>(
      core_, Method::kGetSession, nullptr, context, request, response,
      [this](const CallContext& call,
             const v1::GetSessionRequest& in) -> absl::StatusOr<v1::GetSessionResponse> {
        const Runtime* const runtime = core_.runtime();  // null: nor is there any session
        const AttentionSemantics trained =
            runtime != nullptr ? runtime->model().semantics : AttentionSemantics::kDense;
        return core_.sessions.Get(call.tenant, in.session(), trained);
      });
}

grpc::ServerUnaryReactor* VideoQaService::DeleteSession(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return ServeUnary<v1::DeleteSessionRequest>(
      core_, Method::kDeleteSession, nullptr, context, request, response,
      [this](const CallContext& call,
             const v1::DeleteSessionRequest& in) -> absl::StatusOr<v1::DeleteSessionResponse> {
        core_.sessions.Delete(call.tenant, in.session());
        return v1::DeleteSessionResponse();
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* VideoQaService::AskMany(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return new AskManyCall(core_, *context, *request);
}

}  // namespace videonsa
