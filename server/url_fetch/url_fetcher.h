#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/url_fetch/url_guard.h"

namespace videonsa {

/// Bounds of one download.
struct FetchLimits {
  int64_t max_bytes = int64_t{4} << 30;
  absl::Duration connect = absl::Seconds(5);
  absl::Duration total = absl::Seconds(120);
  int64_t min_rate = 64 * 1024;  ///< bytes a second over `rate_window`
  absl::Duration rate_window = absl::Seconds(10);
  int attempts = 3;  ///< of a download that broke off
};

/// Where the bytes of one download go. Called from the fetching thread, in order; an error ends the
/// download and is returned.
class FetchSink {
 public:
  virtual ~FetchSink() = default;
  /// The whole size, before the first byte; -1 if the other side does not say.
  virtual absl::Status OnSize(int64_t bytes) = 0;
  virtual absl::Status OnBytes(absl::string_view bytes) = 0;
};

/// Downloads what UrlGuard allows, over libcurl and nothing else: no proxy, cookies, credentials,
/// compression or redirects that were not checked. A download that breaks off is taken up where it
/// ended if the other side can prove that the content is the same (If-Range).
///
/// Threads: any; Fetch waits.
class UrlFetcher {
 public:
  UrlFetcher(UrlRules rules, const FetchLimits& limits);
  ~UrlFetcher();

  const UrlGuard& guard() const { return guard_; }

  /// Errors: PERMISSION_DENIED (URL_NOT_ALLOWED) at any hop; UNAVAILABLE (FETCH_FAILED, with the
  ///         HTTP status if there was one); INVALID_ARGUMENT (MEDIA_TOO_LARGE); CANCELLED;
  ///         DEADLINE_EXCEEDED (FETCH_TOO_SLOW); those of the sink.
  /// `cancelled`, if set, is asked several times a second. `why`, if given, gets the cause of
  /// URL_NOT_ALLOWED.
  absl::Status Fetch(absl::string_view url, FetchSink& sink, const std::function<bool()>& cancelled,
                     UrlRefusal* why = nullptr) const;

 private:
  const UrlGuard guard_;
  const FetchLimits limits_;
};

}  // namespace videonsa
