#include "runtime/serving/visual_store.h"

#include <string>
#include <utility>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

// How often a waiter looks at its own cancel flag and deadline.
constexpr absl::Duration kPoll = absl::Milliseconds(10);

template <typename T>
std::string Text(const std::optional<T>& value) {
  return value ? absl::StrCat(*value) : "-";
}
std::string Text(const std::optional<absl::Duration>& value) {
  return value ? absl::StrCat(absl::ToInt64Nanoseconds(*value)) : "-";
}

// A double bit by bit: its short decimal form would make near values equal.
std::string Text(const std::optional<double>& value) {
  return value ? absl::StrCat(absl::Hex(absl::bit_cast<uint64_t>(*value))) : "-";
}

Sha256Digest KeyOf(const Sha256Digest& salt, const MediaSource& source,
                   absl::string_view settings) {
  Sha256Digest content = source.sha256;
  if (content == Sha256Digest{}) {
    if (source.bytes == nullptr) return {};
    content = Sha256Of(*source.bytes);
  }
  return HmacSha256(BytesOf(salt), absl::StrCat(BytesOf(content), settings));
}

int64_t PatchBytesOf(const LoadedVisual& visual) {
  return visual.patches == nullptr
             ? 0
             : static_cast<int64_t>(visual.patches->rows.size() * sizeof(float));
}

bool GivenUp(const absl::Status& status) {
  return status.code() == absl::StatusCode::kCancelled ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

}  // namespace

Sha256Digest VisualKey(const Sha256Digest& salt, const VideoPart& part,
                       PreprocessMode default_mode) {
  const VideoSampling& s = part.sampling;
  return KeyOf(
      salt, part.source,
      absl::StrCat("video|", Text(s.fps), "|", Text(s.num_frames), "|", Text(s.max_frames), "|",
                   Text(s.min_pixels), "|", Text(s.max_pixels), "|", Text(s.range_begin), "|",
                   Text(s.range_end), "|", static_cast<int>(s.mode.value_or(default_mode))));
}

Sha256Digest VisualKey(const Sha256Digest& salt, const ImagePart& part,
                       PreprocessMode default_mode) {
  return KeyOf(salt, part.source,
               absl::StrCat("image|", Text(part.min_pixels), "|", Text(part.max_pixels), "|",
                            static_cast<int>(part.mode.value_or(default_mode))));
}

VisualStore::VisualStore(MediaLoader* loader, TenantSalts salts, const Clock& clock,
                         PreprocessMode default_mode, int64_t cache_bytes, MediaMetrics metrics)
    : loader_(loader),
      salts_(std::move(salts)),
      clock_(clock),
      default_mode_(default_mode),
      cache_bytes_(cache_bytes),
      metrics_(std::move(metrics)) {}

absl::StatusOr<VisualStore::Loaded> VisualStore::Load(absl::string_view tenant,
                                                      const VideoPart& part,
                                                      const LoadControl& control) {
  return LoadOnce(KeyOf(tenant, part), control,
                  [&] { return loader_->LoadVideo(part.source, part.sampling, control); });
}

absl::StatusOr<VisualStore::Loaded> VisualStore::Load(absl::string_view tenant,
                                                      const ImagePart& part,
                                                      const LoadControl& control) {
  return LoadOnce(KeyOf(tenant, part), control, [&] { return loader_->LoadImage(part, control); });
}

absl::StatusOr<LoadedVisual> VisualStore::Stream(const VideoPart& part,
                                                 const LoadControl& control) {
  absl::StatusOr<LoadedVisual> visual = loader_->LoadVideo(part.source, part.sampling, control);
  Count(visual);
  return visual;
}

std::optional<LoadedVisual> VisualStore::Peek(const Sha256Digest& key) const {
  absl::MutexLock lock(&mutex_);
  const auto it = cache_.find(key);
  if (it == cache_.end()) return std::nullopt;
  LoadedVisual visual = it->second.visual;
  visual.patches = nullptr;
  return visual;
}

absl::StatusOr<LoadedVisual> VisualStore::Plan(absl::string_view tenant, const VideoPart& part) {
  if (auto known = Peek(KeyOf(tenant, part))) return *std::move(known);
  return loader_->PlanVideo(part.source, part.sampling);
}

absl::StatusOr<LoadedVisual> VisualStore::Plan(absl::string_view tenant, const ImagePart& part) {
  if (auto known = Peek(KeyOf(tenant, part))) return *std::move(known);
  return loader_->PlanImage(part);
}

template <typename LoadPart>
absl::StatusOr<VisualStore::Loaded> VisualStore::LoadOnce(const Sha256Digest& key,
                                                          const LoadControl& control,
                                                          LoadPart load) {
  Loaded loaded;
  loaded.key = key;
  if (loaded.key == Sha256Digest{}) {
    absl::StatusOr<LoadedVisual> own = load();
    Count(own);
    VNSA_ASSIGN_OR_RETURN(loaded.visual, std::move(own));
    return loaded;
  }
  std::shared_ptr<Flight> lead;
  absl::StatusOr<LoadedVisual> visual = Share(loaded.key, control, &lead);
  if (lead != nullptr) {
    visual = load();
    Count(visual);
    Land(loaded.key, *lead, visual);
  }
  VNSA_ASSIGN_OR_RETURN(loaded.visual, std::move(visual));
  return loaded;
}

void VisualStore::Count(const absl::StatusOr<LoadedVisual>& result) const {
  if (result.ok()) {
    const VisualReport& report = result->report;
    metrics_.frames_decoded.Add(report.frames_decoded);
    metrics_.frames_used.Add(report.image ? 1 : static_cast<double>(report.frame_times.size()));
    metrics_.pixels_decoded.Add(static_cast<double>(report.frames_decoded) * report.source_width *
                                report.source_height);
    return;
  }
  const std::optional<ErrorInfo> info = GetErrorInfo(result.status());
  if (!info) return;
  MediaErrorKind kind = MediaErrorKind::kOther;
  if (info->reason == "MEDIA_UNSUPPORTED") kind = MediaErrorKind::kUnsupported;
  if (info->reason == "MEDIA_CORRUPT") kind = MediaErrorKind::kCorrupt;
  if (info->reason == "MEDIA_TOO_LARGE") kind = MediaErrorKind::kTooManyPixels;
  metrics_.errors[static_cast<size_t>(kind)].Add();
}

// Gives a cached visual or waits for somebody else's load; or sets `lead`: the caller must load.
absl::StatusOr<LoadedVisual> VisualStore::Share(const Sha256Digest& key, const LoadControl& control,
                                                std::shared_ptr<Flight>* lead) {
  absl::MutexLock lock(&mutex_);
  while (true) {
    if (const auto it = cache_.find(key); it != cache_.end()) {
      lru_.splice(lru_.end(), lru_, it->second.lru);
      ++shared_;
      LoadedVisual visual = it->second.visual;
      visual.decode_time = visual.preprocess_time = absl::ZeroDuration();
      return visual;
    }
    const auto it = flights_.find(key);
    if (it == flights_.end()) {
      *lead = std::make_shared<Flight>();
      flights_.emplace(key, *lead);
      return absl::UnknownError("leads");
    }
    const std::shared_ptr<Flight> flight = it->second;
    ++waiting_;
    const absl::Status waited = Await(*flight, control);
    --waiting_;
    VNSA_RETURN_IF_ERROR(waited);
    if (!flight->result.ok() && GivenUp(flight->result.status())) continue;
    ++shared_;
    return flight->result;
  }
}

absl::Status VisualStore::Await(const Flight& flight, const LoadControl& control) {
  while (!flight.done) {
    mutex_.AwaitWithTimeout(absl::Condition(&flight.done), kPoll);
    if (control.cancelled != nullptr && control.cancelled->load(std::memory_order_acquire)) {
      return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "cancelled while loading");
    }
    if (clock_.Monotonic() >= control.deadline) {
      return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXPIRED",
                       "the deadline passed while loading");
    }
  }
  return absl::OkStatus();
}

void VisualStore::Land(const Sha256Digest& key, Flight& flight,
                       const absl::StatusOr<LoadedVisual>& result) {
  absl::MutexLock lock(&mutex_);
  flight.result = result;
  flight.done = true;
  flights_.erase(key);
  if (result.ok()) Remember(key, *result);
}

void VisualStore::Remember(const Sha256Digest& key, const LoadedVisual& visual) {
  const int64_t bytes = PatchBytesOf(visual);
  if (bytes > cache_bytes_ || cache_.contains(key)) return;
  while (bytes_ + bytes > cache_bytes_) {
    const auto oldest = cache_.find(lru_.front());
    VNSA_CHECK(oldest != cache_.end());
    bytes_ -= oldest->second.bytes;
    lru_.pop_front();
    cache_.erase(oldest);
  }
  Entry entry;
  entry.visual = visual;
  entry.bytes = bytes;
  entry.lru = lru_.insert(lru_.end(), key);
  cache_.emplace(key, std::move(entry));
  bytes_ += bytes;
}

int64_t VisualStore::cached_bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

int VisualStore::num_waiting() const {
  absl::MutexLock lock(&mutex_);
  return waiting_;
}

int64_t VisualStore::num_shared() const {
  absl::MutexLock lock(&mutex_);
  return shared_;
}

}  // namespace videonsa
