#include "server/ask_stream_call.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/metered_sink.h"
#include "server/random_id.h"

namespace videonsa {
namespace {

constexpr int kMaxTokensPerDelta = 1024;

}  // namespace

AskStreamCall::AskStreamCall(ServerCore& core, grpc::CallbackServerContext& context,
                             const grpc::ByteBuffer& request)
    : StreamedCall(core, Method::kAskStream, context) {
  if (const absl::Status begun = Begin(core, request); !begun.ok()) End(begun);
}

absl::Status AskStreamCall::Begin(ServerCore& core, const grpc::ByteBuffer& bytes) {
  v1::AskStreamRequest request;
  VNSA_RETURN_IF_ERROR(call().Read(bytes, request));
  if (request.min_tokens_per_delta() < 0 || request.min_tokens_per_delta() > kMaxTokensPerDelta) {
    return InvalidField(
        "min_tokens_per_delta",
        absl::StrCat("is ", request.min_tokens_per_delta(), ", must be 0 to ", kMaxTokensPerDelta));
  }
  VNSA_ASSIGN_OR_RETURN(PreparedQuestion prepared,
                        PrepareQuestion(core, context(), request.question()));
  GenerateRequest& question = prepared.parsed.request;
  const std::string ask_id = RandomId();
  const auto stream = std::make_shared<ResponseStream>(
      core,
      ResponseStream::Question{.ask_id = ask_id,
                               .report = question.report,
                               .priority = question.priority,
                               .min_tokens = std::max(1, request.min_tokens_per_delta()),
                               .holds = std::move(prepared.parsed.holds)},
      this);
  call().SetAskId(ask_id);
  SetSource(stream);
  core.watchdog.Add(stream);
  if (!prepared.needs_fetch) {
    Submit(core, prepared, stream);
    return absl::OkStatus();
  }
  // This call may be gone when the clips are there; the stream is not.
  FetchQuestion(core, context(), std::move(*request.mutable_question()),
                {.cancelled = [stream] { return stream->ended(); },
                 .progress = [stream](int64_t done,
                                      int64_t total) { stream->OnProgress("fetch", done, total); }},
                [&core, stream](absl::StatusOr<PreparedQuestion> fetched) {
                  if (!fetched.ok()) return stream->Cancel(fetched.status());
                  stream->Hold(std::move(fetched->parsed.holds));
                  Submit(core, *fetched, stream);
                });
  return absl::OkStatus();
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

}  // namespace videonsa
