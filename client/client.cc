#include "client/client.h"

#include <utility>

#include "absl/synchronization/notification.h"
#include "client/error.h"
#include "client/format.h"
#include "google/protobuf/wrappers.pb.h"
#include "grpcpp/generic/generic_stub.h"

namespace videonsa::client {
namespace {

// How often WatchClip may be cut without news in between.
constexpr int kMaxWatchAttempts = 5;

bool IsSettled(const proto::Clip& clip) {
  return clip.state() == proto::Clip::STATE_READY || clip.state() == proto::Clip::STATE_FAILED;
}

}  // namespace

absl::StatusOr<std::unique_ptr<VideoNsaClient>> VideoNsaClient::Create(
    const ChannelOptions& options) {
  auto questions = OpenChannel(options);
  if (!questions.ok()) return questions.status();
  auto uploads = OpenChannel(options);
  if (!uploads.ok()) return uploads.status();
  return std::make_unique<VideoNsaClient>(*std::move(questions), *std::move(uploads));
}

VideoNsaClient::VideoNsaClient(std::shared_ptr<grpc::Channel> questions,
                               std::shared_ptr<grpc::Channel> uploads)
    : questions_(questions),
      qa_(proto::VideoQaService::NewStub(questions)),
      clips_(proto::ClipService::NewStub(questions)),
      server_(proto::ServerService::NewStub(questions)),
      admin_(::videonsa::admin::v1::AdminService::NewStub(questions)),
      upload_stub_(proto::ClipService::NewStub(uploads)) {}

absl::StatusOr<proto::AskResult> VideoNsaClient::Ask(const proto::AskRequest& request,
                                                     const CallOptions& options) {
  ScopedCall call(options);
  proto::AskResponse response;
  const grpc::Status status = qa_->Ask(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return std::move(*response.mutable_result());
}

absl::StatusOr<proto::AskResult> VideoNsaClient::AskStream(const proto::AskStreamRequest& request,
                                                           const AskCallbacks& callbacks,
                                                           const CallOptions& options) {
  return ReadAskStream(*qa_, request, callbacks, options);
}

absl::Status VideoNsaClient::AskMany(
    const proto::AskManyRequest& request,
    const std::function<void(const proto::AskManyResponse&)>& on_answer,
    const CallOptions& options) {
  ScopedCall call(options);
  std::unique_ptr<grpc::ClientReader<proto::AskManyResponse>> reader(
      qa_->AskMany(call.context(), request));
  proto::AskManyResponse response;
  while (reader->Read(&response)) on_answer(response);
  return FromGrpc(reader->Finish());
}

absl::StatusOr<proto::CreateSessionResponse> VideoNsaClient::CreateSession(
    const proto::CreateSessionRequest& request, const CallOptions& options) {
  ScopedCall call(options);
  proto::CreateSessionResponse response;
  const grpc::Status status = qa_->CreateSession(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<proto::AppendToSessionResponse> VideoNsaClient::AppendToSession(
    const proto::AppendToSessionRequest& request, const CallOptions& options) {
  ScopedCall call(options);
  proto::AppendToSessionResponse response;
  const grpc::Status status = qa_->AppendToSession(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<proto::GetSessionResponse> VideoNsaClient::GetSession(const std::string& session,
                                                                     const CallOptions& options) {
  ScopedCall call(options);
  proto::GetSessionRequest request;
  request.set_session(session);
  proto::GetSessionResponse response;
  const grpc::Status status = qa_->GetSession(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::Status VideoNsaClient::DeleteSession(const std::string& session, const CallOptions& options) {
  ScopedCall call(options);
  proto::DeleteSessionRequest request;
  request.set_session(session);
  proto::DeleteSessionResponse response;
  return FromGrpc(qa_->DeleteSession(call.context(), request, &response));
}

absl::StatusOr<proto::EstimateResponse> VideoNsaClient::Estimate(const proto::Question& question,
                                                                 const CallOptions& options) {
  ScopedCall call(options);
  proto::EstimateRequest request;
  *request.mutable_question() = question;
  proto::EstimateResponse response;
  const grpc::Status status = qa_->Estimate(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<proto::Clip> VideoNsaClient::GetClip(const std::string& name,
                                                    const CallOptions& options) {
  ScopedCall call(options);
  proto::GetClipRequest request;
  request.set_name(name);
  proto::GetClipResponse response;
  const grpc::Status status = clips_->GetClip(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return std::move(*response.mutable_clip());
}

absl::StatusOr<std::vector<proto::Clip>> VideoNsaClient::ListClips(int limit,
                                                                   const CallOptions& options) {
  std::vector<proto::Clip> clips;
  proto::ListClipsRequest request;
  request.set_page_size(100);
  do {
    ScopedCall call(options);
    proto::ListClipsResponse response;
    const grpc::Status status = clips_->ListClips(call.context(), request, &response);
    if (!status.ok()) return FromGrpc(status);
    for (proto::Clip& clip : *response.mutable_clips()) {
      if (limit > 0 && static_cast<int>(clips.size()) == limit) return clips;
      clips.push_back(std::move(clip));
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return clips;
}

absl::Status VideoNsaClient::DeleteClip(const std::string& name, bool allow_missing,
                                        const CallOptions& options) {
  ScopedCall call(options);
  proto::DeleteClipRequest request;
  request.set_name(name);
  request.set_allow_missing(allow_missing);
  proto::DeleteClipResponse response;
  return FromGrpc(clips_->DeleteClip(call.context(), request, &response));
}

absl::StatusOr<proto::Clip> VideoNsaClient::ImportClip(const proto::ImportClipRequest& request,
                                                       const CallOptions& options) {
  ScopedCall call(options);
  proto::ImportClipResponse response;
  const grpc::Status status = clips_->ImportClip(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return std::move(*response.mutable_clip());
}

absl::StatusOr<proto::Clip> VideoNsaClient::WatchClip(
    const std::string& name, const std::function<void(const proto::Clip&)>& on_change,
    const CallOptions& options) {
  proto::WatchClipRequest request;
  request.set_name(name);
  absl::Status status;
  for (int attempt = 0; attempt < kMaxWatchAttempts; ++attempt) {
    ScopedCall call(options);
    std::unique_ptr<grpc::ClientReader<proto::WatchClipResponse>> reader(
        clips_->WatchClip(call.context(), request));
    proto::WatchClipResponse response;
    proto::Clip last;
    while (reader->Read(&response)) {
      last = response.clip();
      attempt = 0;
      if (on_change) on_change(last);
    }
    status = FromGrpc(reader->Finish());
    if (status.ok() && IsSettled(last)) return last;
    if (status.ok()) {
      status = LocalError(absl::StatusCode::kUnavailable, "STREAM_INCOMPLETE",
                          "the server stopped reporting before the clip was ready");
    }
    if (!IsTransient(status)) return status;
    if (options.cancellation != nullptr && options.cancellation->cancelled()) return status;
    absl::SleepFor(absl::Milliseconds(200) * (1 << attempt));
  }
  return status;
}

absl::StatusOr<proto::ModelInfo> VideoNsaClient::GetModel(const CallOptions& options) {
  ScopedCall call(options);
  proto::GetModelResponse response;
  const grpc::Status status = server_->GetModel(call.context(), {}, &response);
  if (!status.ok()) return FromGrpc(status);
  return std::move(*response.mutable_model());
}

absl::StatusOr<proto::GetServerStatusResponse> VideoNsaClient::GetServerStatus(
    const CallOptions& options) {
  ScopedCall call(options);
  proto::GetServerStatusResponse response;
  const grpc::Status status = server_->GetServerStatus(call.context(), {}, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<bool> VideoNsaClient::CheckHealth(const std::string& service,
                                                 const CallOptions& options) {
  // HealthCheckRequest {string service = 1} and HealthCheckResponse {enum status = 1} have the same
  // wire form as these wrappers, which saves a second copy of the health protocol.
  constexpr int kServing = 1;
  google::protobuf::StringValue request;
  request.set_value(service);
  google::protobuf::Int32Value response;
  ScopedCall call(options);
  grpc::TemplatedGenericStub<google::protobuf::StringValue, google::protobuf::Int32Value> stub(
      questions_);
  absl::Notification done;
  grpc::Status status;
  stub.UnaryCall(call.context(), "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request,
                 &response, [&](grpc::Status result) {
                   status = std::move(result);
                   done.Notify();
                 });
  done.WaitForNotification();
  if (!status.ok()) return FromGrpc(status);
  return response.value() == kServing;
}

absl::StatusOr<int> VideoNsaClient::Drain(absl::Duration timeout, const CallOptions& options) {
  ScopedCall call(options);
  ::videonsa::admin::v1::DrainRequest request;
  *request.mutable_timeout() = ToProto(timeout);
  ::videonsa::admin::v1::DrainResponse response;
  const grpc::Status status = admin_->Drain(call.context(), request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response.remaining();
}

}  // namespace videonsa::client
