#include "server/video_qa_service.h"

#include "server/ask_call.h"
#include "server/ask_setup.h"
#include "server/ask_stream_call.h"
#include "server/refused_call.h"
#include "server/result_conversion.h"
#include "server/unary_call.h"

namespace videonsa {
namespace {

template <typename Request, typename Response>
grpc::ServerUnaryReactor* Refuse(ServerCore& core, Method method, const char* name,
                                 grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary<Request>(core, method, nullptr, context, request, response,
                             [name](const CallContext&, const Request&) {
                               return absl::StatusOr<Response>(NotImplemented(name));
                             });
}

}  // namespace

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
  return Refuse<v1::CreateSessionRequest, v1::CreateSessionResponse>(
      core_, Method::kCreateSession, "CreateSession", context, request, response);
}

grpc::ServerUnaryReactor* VideoQaService::AppendToSession(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  return Refuse<v1::AppendToSessionRequest, v1::AppendToSessionResponse>(
      core_, Method::kAppendToSession, "AppendToSession", context, request, response);
}

grpc::ServerUnaryReactor* VideoQaService::DeleteSession(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return Refuse<v1::DeleteSessionRequest, v1::DeleteSessionResponse>(
      core_, Method::kDeleteSession, "DeleteSession", context, request, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* VideoQaService::AskMany(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return new RefusedStream(core_, Method::kAskMany, *context, NotImplemented("AskMany"));
}

}  // namespace videonsa
