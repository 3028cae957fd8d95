#include "server/watch_call.h"

#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/raw_message.h"

namespace videonsa {

// Between the store's threads and the call. Threads: any.
class WatchCall::Link : public ClipWatcher {
 public:
  explicit Link(WatchCall* call) : call_(call) {}

  void OnClip(const v1::Clip& clip, int64_t version) override {
    absl::MutexLock lock(&mutex_);
    if (version <= version_) return;
    version_ = version;
    pending_ = clip;
    Pump();
  }

  void OnEnd(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    End(status);
  }

  void OnWritten(bool ok) {
    absl::MutexLock lock(&mutex_);
    in_flight_ = false;
    if (ok) Pump();
  }

 private:
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (call_ == nullptr || in_flight_) return;
    if (pending_) {
      last_ =
          pending_->state() == v1::Clip::STATE_READY || pending_->state() == v1::Clip::STATE_FAILED;
      v1::WatchClipResponse response;
      *response.mutable_clip() = *std::exchange(pending_, std::nullopt);
      in_flight_ = true;
      call_->message_ = SerializeMessage(response);
      call_->call_.Answering(call_->message_);
      call_->StartWrite(&call_->message_);
    } else if (last_) {
      End(absl::OkStatus());
    }
  }

  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (call_ == nullptr) return;
    WatchCall* const call = std::exchange(call_, nullptr);
    call->Finish(call->call_.End(status));
  }

  absl::Mutex mutex_;
  WatchCall* call_ ABSL_GUARDED_BY(mutex_);  // null once finished
  std::optional<v1::Clip> pending_ ABSL_GUARDED_BY(mutex_);
  int64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  bool in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool last_ ABSL_GUARDED_BY(mutex_) = false;  // the state written last ends the stream
};

WatchCall::WatchCall(ServerCore& core, grpc::CallbackServerContext& context,
                     const grpc::ByteBuffer& request)
    : call_(core, Method::kWatchClip, context), link_(std::make_shared<Link>(this)) {
  v1::WatchClipRequest wire;
  if (const absl::Status read = call_.Read(request, wire); !read.ok()) {
    link_->OnEnd(read);
    return;
  }
  const auto clip = core.clips.Watch(call_.context().tenant, wire.name(), link_);
  if (clip.ok()) {
    link_->OnClip(clip->first, clip->second);
  } else {
    link_->OnEnd(clip.status());
  }
}

void WatchCall::OnWriteDone(bool ok) { link_->OnWritten(ok); }

void WatchCall::OnCancel() { link_->OnEnd(absl::CancelledError("the caller left")); }

}  // namespace videonsa
