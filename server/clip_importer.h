#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/base/clock.h"
#include "server/clip_store/clip_store.h"
#include "server/options.h"
#include "server/url_fetch/url_fetcher.h"
#include "server/worker_pool.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// The fetch stage: brings clips from allowed URLs into the clip store, a few at a time.
///
/// Threads: all methods may be called from any thread. Lifetime: store and disk outlive it; Stop
///          or the destructor cancels what is under way.
class ClipImporter {
 public:
  ClipImporter(const UrlOptions& options, int64_t max_clip_bytes, ClipStore& clips,
               WorkerPool& disk, const Clock& clock, MetricsRegistry& metrics);
  ~ClipImporter();

  /// ImportClip: makes the clip and fetches it later. [disk]
  /// Errors: UNIMPLEMENTED (FEATURE_OFF) while no host is allowed, PERMISSION_DENIED
  ///         (URL_NOT_ALLOWED), those of ClipStore::StartImport, UNAVAILABLE (QUEUE_FULL).
  absl::StatusOr<v1::ImportClipResponse> Import(const std::string& tenant,
                                                const v1::ImportClipRequest& request);

  /// Counts and logs a refusal.
  /// Errors: PERMISSION_DENIED (URL_NOT_ALLOWED).
  absl::Status CheckUrl(const std::string& tenant, absl::string_view url) const;

  /// A question whose URLs are to be fetched before it is asked.
  struct Task {
    std::string tenant;
    v1::Question question;
    absl::Duration deadline = absl::InfiniteDuration();  ///< monotonic
    std::function<bool()> cancelled;
    std::function<void(int64_t done, int64_t total)> progress;  ///< bytes; total -1: unknown
  };
  /// The question with stored clips in place of URLs; `hold` deletes them when it dies.
  struct Localized {
    v1::Question question;
    std::shared_ptr<void> hold;
  };
  using Done = std::function<void(absl::StatusOr<Localized> result)>;
  /// Calls `done` once, from a fetch thread, or at once with UNAVAILABLE (QUEUE_FULL).
  void Localize(Task task, Done done);

  void Stop();

 private:
  class Arrival;
  absl::Status FetchInto(const std::string& url, const ClipStore::Import& import,
                         const std::string& tenant, const std::function<bool()>& cancelled,
                         const std::function<void(int64_t, int64_t)>& progress);
  absl::StatusOr<Localized> FetchAll(const Task& task);
  absl::StatusOr<std::string> FetchPart(const std::string& url, const Task& task,
                                        std::vector<std::string>& names);
  absl::Status AwaitReady(const std::string& name, const Task& task) const;
  void Discard(const std::string& tenant, const std::vector<std::string>& names);

  const UrlFetcher fetcher_;
  ClipStore& clips_;
  WorkerPool& disk_;
  const Clock& clock_;
  enum Outcome { kOk, kTooLarge, kSlow, kFailed, kDigest, kCancelled, kOther, kNumOutcomes };
  static Outcome OutcomeOf(const absl::Status& status);
  void Refused(const std::string& tenant, UrlRefusal why) const;

  std::array<Counter, kNumOutcomes> ended_;
  std::array<Counter, kNumUrlRefusals> refused_;
  const Counter bytes_;
  std::atomic<bool> stopping_{false};
  WorkerPool fetches_;
};

}  // namespace videonsa
