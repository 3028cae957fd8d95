#include "server/clip_importer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"

namespace videonsa {
namespace {

constexpr size_t kQueue = 256;
constexpr int64_t kReserveStep = int64_t{16} << 20;  // of a url that does not say its size
constexpr absl::Duration kTemporaryTtl = absl::Minutes(10);
constexpr absl::Duration kPoll = absl::Milliseconds(5);
// By UrlRefusal.
constexpr std::array<const char*, kNumUrlRefusals> kRefusals = {"form", "scheme",  "host",
                                                                "port", "address", "redirect"};

absl::Status QueueFull() {
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "QUEUE_FULL", .retry_after = absl::Seconds(5)},
                   "too many urls wait to be fetched");
}

absl::Status Cancelled() {
  return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the request was cancelled");
}

FetchLimits LimitsOf(const UrlOptions& options, int64_t max_bytes) {
  FetchLimits limits = options.limits;
  limits.max_bytes = max_bytes;
  return limits;
}

// The url field of a part, or null.
std::string* UrlOf(v1::Part& part) {
  if (part.has_clip() && part.clip().source_case() == v1::ClipInput::kUrl) {
    return part.mutable_clip()->mutable_url();
  }
  if (part.has_image() && part.image().source_case() == v1::ImageInput::kUrl) {
    return part.mutable_image()->mutable_url();
  }
  return nullptr;
}

}  // namespace

// Bytes of one download on their way into the store.
class ClipImporter::Arrival : public FetchSink {
 public:
  Arrival(ClipStore& clips, UploadWriter writer, const Counter& bytes,
          std::function<void(int64_t, int64_t)> progress)
      : clips_(clips), writer_(std::move(writer)), bytes_(bytes), progress_(std::move(progress)) {}

  absl::Status OnSize(int64_t bytes) override {
    total_ = bytes;
    return bytes > 0 ? clips_.ResizeImport(writer_, bytes) : absl::OkStatus();
  }

  absl::Status OnBytes(absl::string_view bytes) override {
    const int64_t end = received_ + static_cast<int64_t>(bytes.size());
    if (end > writer_.declared_bytes) {
      VNSA_RETURN_IF_ERROR(
          clips_.ResizeImport(writer_, (end + kReserveStep - 1) / kReserveStep * kReserveStep));
    }
    v1::UploadChunk chunk;
    chunk.set_offset(received_);
    chunk.set_data(bytes.data(), bytes.size());
    VNSA_RETURN_IF_ERROR(clips_.Append(writer_, chunk).status());
    received_ = end;
    bytes_.Add(static_cast<double>(bytes.size()));
    if (progress_) progress_(received_, total_);
    return absl::OkStatus();
  }

  absl::Status Finish() {
    if (received_ == 0) {
      return MakeError(absl::StatusCode::kUnavailable, "FETCH_FAILED",
                       "the url could not be fetched: it is empty");
    }
    if (received_ != writer_.declared_bytes) {
      VNSA_RETURN_IF_ERROR(clips_.ResizeImport(writer_, received_));
    }
    v1::UploadChunk last;
    last.set_offset(received_);
    last.set_finish(true);
    return clips_.Append(writer_, last).status();
  }

 private:
  ClipStore& clips_;
  UploadWriter writer_;
  const Counter bytes_;
  const std::function<void(int64_t, int64_t)> progress_;
  int64_t received_ = 0;
  int64_t total_ = -1;
};

ClipImporter::ClipImporter(const UrlOptions& options, int64_t max_clip_bytes, ClipStore& clips,
                           WorkerPool& disk, const Clock& clock, MetricsRegistry& metrics)
    : fetcher_(options.rules, LimitsOf(options, max_clip_bytes)),
      clips_(clips),
      disk_(disk),
      clock_(clock),
      bytes_(metrics.AddCounter("videonsa_fetch_bytes_total", "Bytes that came from urls.")),
      fetches_(options.threads, kQueue) {
  const auto counter = [&metrics](const char* outcome) {
    return metrics.AddCounter("videonsa_fetch_requests_total",
                              "Urls that were refused and fetches that ended.",
                              {{"outcome", outcome}});
  };
  constexpr std::array<const char*, kNumOutcomes> kOutcomes = {
      "ok", "too_large", "slow", "failed", "digest", "cancelled", "other"};
  for (size_t i = 0; i < ended_.size(); ++i) ended_[i] = counter(kOutcomes[i]);
  for (size_t i = 0; i < refused_.size(); ++i) refused_[i] = counter(kRefusals[i]);
}

ClipImporter::~ClipImporter() { Stop(); }

void ClipImporter::Stop() {
  stopping_ = true;
  fetches_.Stop();
}

// Neither url nor host: what a refused caller wrote may be anything, its own secrets among it.
void ClipImporter::Refused(const std::string& tenant, UrlRefusal why) const {
  refused_[static_cast<size_t>(why)].Add();
  Log(LogLevel::kInfo, "url refused",
      {{"tenant", tenant}, {"why", kRefusals[static_cast<size_t>(why)]}});
}

absl::Status ClipImporter::CheckUrl(const std::string& tenant, absl::string_view url) const {
  UrlRefusal why = UrlRefusal::kForm;
  absl::Status status = fetcher_.guard().CheckUrl(url, &why).status();
  if (!status.ok()) Refused(tenant, why);
  return status;
}

ClipImporter::Outcome ClipImporter::OutcomeOf(const absl::Status& status) {
  if (status.ok()) return kOk;
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  const std::string reason = info ? info->reason : "";
  if (reason == "MEDIA_TOO_LARGE") return kTooLarge;
  if (reason == "FETCH_TOO_SLOW") return kSlow;
  if (reason == "FETCH_FAILED") return kFailed;
  if (reason == "CHECKSUM_MISMATCH") return kDigest;
  return status.code() == absl::StatusCode::kCancelled ? kCancelled : kOther;
}

absl::Status ClipImporter::FetchInto(const std::string& url, const ClipStore::Import& import,
                                     const std::string& tenant,
                                     const std::function<bool()>& cancelled,
                                     const std::function<void(int64_t, int64_t)>& progress) {
  VNSA_ASSIGN_OR_RETURN(UploadWriter writer, clips_.BeginWrite(tenant, import.upload_id, 0));
  const std::string id = writer.clip_id;
  Arrival arrival(clips_, std::move(writer), bytes_, progress);
  UrlRefusal why = UrlRefusal::kForm;
  absl::Status status = fetcher_.Fetch(
      url, arrival, [this, &cancelled] { return stopping_ || (cancelled && cancelled()); }, &why);
  if (status.ok()) status = arrival.Finish();
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  if (info && info->reason == "URL_NOT_ALLOWED") {
    Refused(tenant, why);
  } else {
    ended_[OutcomeOf(status)].Add();
  }
  Log(LogLevel::kInfo, "url fetched",
      {{"clip", id},
       {"code", absl::StatusCodeToString(status.code())},
       {"reason", info ? info->reason : ""}});
  if (!status.ok()) clips_.FailImport(id, status);
  return status;
}

absl::StatusOr<v1::ImportClipResponse> ClipImporter::Import(const std::string& tenant,
                                                            const v1::ImportClipRequest& request) {
  if (!fetcher_.guard().enabled()) {
    return MakeError(absl::StatusCode::kUnimplemented, "FEATURE_OFF",
                     "import by url is off: no host is on the server's allow-list");
  }
  VNSA_RETURN_IF_ERROR(CheckUrl(tenant, request.url()));
  VNSA_ASSIGN_OR_RETURN(const ClipStore::Import import, clips_.StartImport(tenant, request));
  v1::ImportClipResponse response;
  *response.mutable_clip() = import.clip;
  if (import.upload_id.empty()) return response;
  const bool queued = fetches_.TrySubmit([this, import, tenant, url = request.url()] {
    FetchInto(url, import, tenant, nullptr, nullptr).IgnoreError();  // the clip says it
  });
  if (!queued) {
    const absl::Status full = QueueFull();
    clips_.FailImport(ClipIdOf(import.clip.name()), full);
    return full;
  }
  return response;
}

absl::Status ClipImporter::AwaitReady(const std::string& name, const Task& task) const {
  while (true) {
    VNSA_ASSIGN_OR_RETURN(const v1::Clip clip, clips_.Get(task.tenant, name));
    if (clip.state() == v1::Clip::STATE_READY) return absl::OkStatus();
    if (clip.state() == v1::Clip::STATE_FAILED) {
      return MakeError(absl::StatusCode::kInvalidArgument, clip.error_reason(),
                       clip.error_message());
    }
    if (stopping_ || (task.cancelled && task.cancelled())) return Cancelled();
    if (clock_.Monotonic() >= task.deadline) {
      return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXPIRED",
                       "the deadline passed while a url was fetched");
    }
    absl::SleepFor(kPoll);
  }
}

absl::StatusOr<std::string> ClipImporter::FetchPart(const std::string& url, const Task& task,
                                                    std::vector<std::string>& names) {
  v1::ImportClipRequest request;
  request.mutable_ttl()->set_seconds(absl::ToInt64Seconds(kTemporaryTtl));
  VNSA_ASSIGN_OR_RETURN(const ClipStore::Import import, clips_.StartImport(task.tenant, request));
  names.push_back(import.clip.name());
  const auto cancelled = [this, &task] {
    return (task.cancelled && task.cancelled()) || clock_.Monotonic() >= task.deadline;
  };
  const absl::Status fetched = FetchInto(url, import, task.tenant, cancelled, task.progress);
  if (!fetched.ok() && fetched.code() != absl::StatusCode::kCancelled) return fetched;
  VNSA_RETURN_IF_ERROR(AwaitReady(import.clip.name(), task));
  return import.clip.name();
}

absl::StatusOr<ClipImporter::Localized> ClipImporter::FetchAll(const Task& task) {
  Localized out{task.question, nullptr};
  std::vector<std::string> names;
  absl::Status status;
  for (v1::Turn& turn : *out.question.mutable_turns()) {
    for (v1::Part& part : *turn.mutable_parts()) {
      const std::string* const url = UrlOf(part);
      if (url == nullptr || !status.ok()) continue;
      const absl::StatusOr<std::string> name = FetchPart(std::string(*url), task, names);
      status = name.status();
      if (!name.ok()) continue;
      if (part.has_clip()) {
        part.mutable_clip()->set_clip(*name);
      } else {
        part.mutable_image()->set_clip(*name);
      }
    }
  }
  out.hold = std::shared_ptr<void>(
      nullptr, [this, tenant = task.tenant, names](void*) { Discard(tenant, names); });
  if (!status.ok()) return status;
  return out;
}

// Leaves to expiry what cannot be queued.
void ClipImporter::Discard(const std::string& tenant, const std::vector<std::string>& names) {
  disk_.TrySubmit([&clips = clips_, tenant, names] {
    for (const std::string& name : names) clips.Delete(tenant, name).IgnoreError();
  });
}

void ClipImporter::Localize(Task task, Done done) {
  const auto shared = std::make_shared<std::pair<Task, Done>>(std::move(task), std::move(done));
  const bool queued =
      fetches_.TrySubmit([this, shared] { shared->second(FetchAll(shared->first)); });
  if (!queued) shared->second(QueueFull());
}

}  // namespace videonsa
