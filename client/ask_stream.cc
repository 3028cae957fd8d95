#include "client/ask_stream.h"

#include <memory>

#include "client/error.h"

namespace videonsa::client {

absl::Status AskAssembler::Take(const proto::AskStreamResponse& event) {
  if (final_seen_) {
    return LocalError(absl::StatusCode::kDataLoss, "STREAM_INVALID",
                      "the server sent an event after the final one");
  }
  if (event.has_delta()) {
    text_ += event.delta().text();
    for (const proto::TokenLogprob& token : event.delta().logprobs()) {
      *result_.add_logprobs() = token;
    }
  } else if (event.has_final()) {
    final_seen_ = true;
    result_.MergeFrom(event.final());
    // The final event repeats no text; a server that does repeat it must not double it.
    result_.set_text(text_.empty() ? event.final().text() : text_);
  }
  return absl::OkStatus();
}

absl::StatusOr<proto::AskResult> AskAssembler::Finish() {
  if (!final_seen_) {
    return LocalError(absl::StatusCode::kDataLoss, "STREAM_INCOMPLETE",
                      "the stream ended without its final event");
  }
  return std::move(result_);
}

absl::StatusOr<proto::AskResult> ReadAskStream(proto::VideoQaService::StubInterface& stub,
                                               const proto::AskStreamRequest& request,
                                               const AskCallbacks& callbacks,
                                               const CallOptions& options) {
  ScopedCall call(options);
  std::unique_ptr<grpc::ClientReaderInterface<proto::AskStreamResponse>> reader(
      stub.AskStream(call.context(), request));
  AskAssembler assembler;
  absl::Status broken;
  proto::AskStreamResponse event;
  while (reader->Read(&event)) {
    if (broken = assembler.Take(event); !broken.ok()) {
      call.context()->TryCancel();
      break;
    }
    if (event.has_accepted() && callbacks.on_accepted) callbacks.on_accepted(event.accepted());
    if (event.has_progress() && callbacks.on_progress) callbacks.on_progress(event.progress());
    if (event.has_prefill() && callbacks.on_prefill) callbacks.on_prefill(event.prefill());
    if (event.has_delta() && callbacks.on_delta) callbacks.on_delta(event.delta());
  }
  const absl::Status status = FromGrpc(reader->Finish());
  if (!broken.ok()) return broken;
  if (!status.ok()) return status;
  return assembler.Finish();
}

}  // namespace videonsa::client
