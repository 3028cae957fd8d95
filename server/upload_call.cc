#include "server/upload_call.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "server/raw_message.h"

namespace videonsa {
namespace {

constexpr absl::Duration kRateWindow = absl::Seconds(10);
constexpr absl::Duration kRateGrace = absl::Seconds(5);

absl::Status TooSlow(absl::string_view why, int64_t committed) {
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   ErrorInfo{.reason = "UPLOAD_TOO_SLOW",
                             .metadata = {{"bytes_this_stream", absl::StrCat(committed)}},
                             .retry_after = absl::Seconds(1)},
                   absl::StrCat("upload stream ended: ", why, "; resume it"));
}

}  // namespace

// What outlives the call: the state that workers and the watchdog may touch. Threads: any.
class UploadCall::Link : public Watched, public std::enable_shared_from_this<Link> {
 public:
  Link(ServerCore& core, UploadCall* call)
      : core_(core), call_(call), tenant_(call->call_.context().tenant) {
    begin_ = window_begin_ = last_ = core.clock.Monotonic();
  }

  // The call's message arrived (or nothing more will). Hands it to a worker.
  void Arrived(bool ok, grpc::ByteBuffer message) {
    const auto self = shared_from_this();
    {
      absl::MutexLock lock(&mutex_);
      last_ = core_.clock.Monotonic();
      reading_ = false;
    }
    const bool queued = core_.disk.TrySubmit([self, ok, message = std::move(message)] {
      const absl::StatusOr<std::optional<v1::UploadClipResponse>> result = self->Store(ok, message);
      if (!result.ok()) {
        self->End(result.status(), nullptr);
      } else if (result->has_value()) {
        self->End(absl::OkStatus(), &**result);
      } else {
        self->ReadNext();
      }
    });
    if (!queued) {
      End(MakeError(absl::StatusCode::kUnavailable,
                    ErrorInfo{.reason = "QUEUE_FULL", .retry_after = absl::Seconds(1)},
                    "too many calls wait for the disk"),
          nullptr);
    }
  }

  void ReadNext() {
    absl::MutexLock lock(&mutex_);
    if (call_ == nullptr) return;
    reading_ = true;
    last_ = core_.clock.Monotonic();
    call_->StartRead(&call_->message_);
  }

  // The first call wins.
  void End(const absl::Status& status, const v1::UploadClipResponse* response) {
    absl::MutexLock lock(&mutex_);
    if (call_ == nullptr) return;
    UploadCall* const call = std::exchange(call_, nullptr);
    if (response != nullptr) {
      *call->response_ = SerializeMessage(*response);
      call->call_.Answering(*call->response_);
    }
    call->Finish(call->call_.End(status));
  }

  void Check(absl::Duration now) override {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      if (call_ == nullptr || !reading_) return;  // while the disk works, the sender is not late
      if (now - last_ >= core_.options.upload_idle) {
        status = TooSlow(absl::StrCat("no chunk for ", absl::FormatDuration(now - last_)), bytes_);
      } else if (now - begin_ >= kRateGrace && now - window_begin_ >= kRateWindow) {
        const double rate = static_cast<double>(bytes_ - window_bytes_) /
                            absl::ToDoubleSeconds(now - window_begin_);
        if (rate < static_cast<double>(core_.options.upload_min_rate)) {
          status = TooSlow(absl::StrCat(static_cast<int64_t>(rate), " bytes/s, at least ",
                                        core_.options.upload_min_rate),
                           bytes_);
        }
        window_begin_ = now;
        window_bytes_ = bytes_;
      }
    }
    if (!status.ok()) End(status, nullptr);
  }

 private:
  // Puts one message on disk. Returns the response if the stream is complete. Worker threads, one
  // at a time.
  absl::StatusOr<std::optional<v1::UploadClipResponse>> Store(bool ok,
                                                              const grpc::ByteBuffer& message) {
    if (!ok) {  // the sender stopped, orderly or not: keep what came
      if (!writer_) return InvalidField("header", "the first message must be a header");
      absl::StatusOr<UploadState> state = core_.clips.Commit(*writer_);
      if (!state.ok()) return state.status();
      return ResponseOf(*state);
    }
    v1::UploadClipRequest request;
    if (absl::Status parsed = ParseMessage(message, request); !parsed.ok()) return parsed;
    if (!writer_) {
      if (!request.has_header()) {
        return InvalidField("header", "the first message must be a header");
      }
      absl::StatusOr<UploadWriter> writer = core_.clips.BeginWrite(
          tenant_, request.header().upload_id(), request.header().write_offset());
      if (!writer.ok()) return writer.status();
      writer_ = *std::move(writer);
      return std::optional<v1::UploadClipResponse>();
    }
    if (!request.has_chunk()) {
      return InvalidField("chunk", "messages after the first must be chunks");
    }
    absl::StatusOr<UploadState> state = core_.clips.Append(*writer_, request.chunk());
    if (!state.ok()) return state.status();
    {
      absl::MutexLock lock(&mutex_);
      bytes_ += static_cast<int64_t>(request.chunk().data().size());
    }
    if (!request.chunk().finish()) return std::optional<v1::UploadClipResponse>();
    return ResponseOf(*state);
  }

  static std::optional<v1::UploadClipResponse> ResponseOf(const UploadState& state) {
    v1::UploadClipResponse response;
    response.set_committed_size(state.committed_bytes);
    response.set_complete(state.complete);
    *response.mutable_clip() = state.clip;
    return response;
  }

  ServerCore& core_;
  absl::Mutex mutex_;
  UploadCall* call_ ABSL_GUARDED_BY(mutex_);  // null once finished
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of this stream
  int64_t window_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration begin_ ABSL_GUARDED_BY(mutex_);
  absl::Duration window_begin_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_ ABSL_GUARDED_BY(mutex_);  // last message or request for one
  const std::string tenant_;
  std::optional<UploadWriter> writer_;  // the one running worker only
};

UploadCall::UploadCall(ServerCore& core, grpc::CallbackServerContext& context,
                       grpc::ByteBuffer* response, const Gauge& active)
    : call_(core, Method::kUploadClip, context), response_(response), active_(active) {
  active_.Add(1);
  link_ = std::make_shared<Link>(core, this);
  core.watchdog.Add(link_);
  if (const absl::Status& refusal = call_.context().refusal; !refusal.ok()) {
    link_->End(refusal, nullptr);
  } else if (absl::StatusOr<Runtime*> admitted = core.Admit();
             !admitted.ok() && core.state() != ServerState::kLoading) {
    link_->End(admitted.status(), nullptr);
  } else {
    link_->ReadNext();
  }
}

void UploadCall::OnReadDone(bool ok) {
  if (ok) call_.Received(message_);
  link_->Arrived(ok, std::move(message_));
}

void UploadCall::OnCancel() { link_->End(absl::CancelledError("the sender left"), nullptr); }

void UploadCall::OnDone() {
  active_.Add(-1);
  delete this;
}

}  // namespace videonsa
