#include "server/ask_stream_call.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "server/ask_setup.h"
#include "server/metered_sink.h"
#include "server/random_id.h"
#include "server/raw_message.h"
#include "server/status_conversion.h"

namespace videonsa {
namespace {

constexpr int kMaxTokensPerDelta = 1024;

}  // namespace

AskStreamCall::AskStreamCall(ServerCore& core, grpc::CallbackServerContext& context,
                             const grpc::ByteBuffer& request)
    : core_(core),
      context_(context),
      meter_(core.calls, Method::kAskStream),
      call_(MakeCallContext(core, Method::kAskStream, context)),
      ask_id_(RandomId()) {
  context.AddInitialMetadata("videonsa-ask-id", ask_id_);
  Begin(request);
}

void AskStreamCall::Begin(const grpc::ByteBuffer& bytes) {
  if (!call_.refusal.ok()) return Refuse(call_.refusal);
  v1::AskStreamRequest request;
  if (absl::Status parsed = ParseMessage(bytes, request); !parsed.ok()) return Refuse(parsed);
  if (request.min_tokens_per_delta() < 0 || request.min_tokens_per_delta() > kMaxTokensPerDelta) {
    return Refuse(
        InvalidField("min_tokens_per_delta", absl::StrCat("is ", request.min_tokens_per_delta(),
                                                          ", must be 0 to ", kMaxTokensPerDelta)));
  }
  absl::StatusOr<PreparedQuestion> prepared = PrepareQuestion(core_, call_, request.question());
  if (!prepared.ok()) return Refuse(prepared.status());
  GenerateRequest& question = prepared->parsed.request;
  stream_ = std::make_shared<ResponseStream>(
      core_,
      ResponseStream::Question{.ask_id = ask_id_,
                               .report = question.report,
                               .priority = question.priority,
                               .min_tokens = std::max(1, request.min_tokens_per_delta()),
                               .holds = std::move(prepared->parsed.holds)},
      this);
  core_.watchdog.Add(stream_);
  if (!prepared->needs_fetch) return Submit(core_, *prepared, stream_);
  // This call may be gone when the clips are there; the stream is not.
  FetchQuestion(
      core_, call_, std::move(*request.mutable_question()),
      {.cancelled = [stream = stream_] { return stream->ended(); },
       .progress = [stream = stream_](int64_t done,
                                      int64_t total) { stream->OnProgress("fetch", done, total); }},
      [&core = core_, stream = stream_](absl::StatusOr<PreparedQuestion> fetched) {
        if (!fetched.ok()) return stream->Cancel(fetched.status());
        stream->Hold(std::move(fetched->parsed.holds));
        Submit(core, *fetched, stream);
      });
}

void AskStreamCall::Submit(ServerCore& core, PreparedQuestion& prepared,
                           const std::shared_ptr<ResponseStream>& stream) {
  stream->SetTurn(std::move(prepared.turn));
  // The runtime may answer before Submit returns.
  GenerateRequest& request = prepared.parsed.request;
  auto sink =
      std::make_shared<MeteredSink>(core, request.tenant, std::move(prepared.trace), stream);
  const absl::StatusOr<RequestId> id =
      prepared.runtime->Submit(std::move(request), std::move(sink));
  if (id.ok()) {
    stream->SetRequest(*prepared.runtime, *id);
  } else {
    core.requests.Refused(id.status());
    stream->SetTurn(nullptr);  // gives the session back
    stream->Cancel(id.status());
  }
}

void AskStreamCall::Refuse(const absl::Status& status) { End(status); }

void AskStreamCall::Write(const v1::AskStreamResponse& event) {
  message_ = SerializeMessage(event);
  StartWrite(&message_);
}

void AskStreamCall::End(const absl::Status& status) {
  meter_.SetCode(static_cast<int>(status.code()));
  LogEnded(call_, ask_id_, status, core_.clock.Monotonic() - call_.received_at);
  Finish(ToGrpcStatus(status, call_.request_id));
}

void AskStreamCall::Cut() { context_.TryCancel(); }

void AskStreamCall::OnWriteDone(bool ok) { stream_->OnWritten(ok); }

void AskStreamCall::OnCancel() {
  if (stream_ != nullptr) stream_->Cancel(absl::CancelledError("the caller left"));
}

void AskStreamCall::OnDone() {
  if (stream_ != nullptr) stream_->Detach();
  delete this;
}

}  // namespace videonsa
