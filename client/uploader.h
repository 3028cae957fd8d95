#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "absl/status/statusor.h"
#include "client/call_options.h"
#include "videonsa/v1/clip.grpc.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// How a file is sent.
struct UploadOptions {
  /// Caller's label; empty: the file's name.
  std::string display_name;
  /// How long the server keeps the clip after its last use; zero: the server's default.
  absl::Duration ttl = absl::ZeroDuration();
  /// Largest chunk; the server may ask for less.
  int chunk_bytes = 1 << 20;
  /// Failures in a row without a byte of progress after which the upload is given up.
  int max_attempts = 10;
  /// First wait after a failure; doubled each time up to `max_backoff`, times 0.5 to 1 by chance.
  absl::Duration initial_backoff = absl::Milliseconds(200);
  absl::Duration max_backoff = absl::Seconds(5);
  /// False: always a fresh upload, even if an earlier one of the same bytes was begun.
  bool resume = true;
  CallOptions call;
};

/// Where an upload is.
struct UploadProgress {
  enum class Phase { kHashing, kSending, kWaiting };
  Phase phase = Phase::kHashing;
  int64_t done_bytes = 0;
  int64_t total_bytes = 0;
  /// kWaiting: the failure that is waited for, and for how long.
  absl::Status failure;
  absl::Duration wait = absl::ZeroDuration();
};

/// What an upload came to.
struct UploadResult {
  proto::Clip clip;
  std::string sha256;           ///< 32 raw bytes
  int64_t sent_bytes = 0;       ///< bytes put on the wire, repeats included
  int64_t resumed_at = 0;       ///< bytes that the server had before this call
  int cuts = 0;                 ///< streams that broke and were taken up again
  bool already_stored = false;  ///< nothing had to be sent
};

/// Sends a file so that neither a cut connection nor a restart of client or server loses what has
/// arrived: the upload's id follows from the content, so a second process finds the first one's
/// upload; after every cut the committed size is asked for and sending goes on from there.
///
/// Chunks carry CRC32C, the whole file SHA-256.
/// Threads: one Upload at a time an object; blocks.
class Uploader {
 public:
  /// `stub` must outlive the object and should have its own connection.
  explicit Uploader(proto::ClipService::StubInterface& stub);

  /// Sends the file at `path`; returns when the server has all bytes (the clip may be PROBING).
  /// Errors: NOT_FOUND (FILE_UNREADABLE), INVALID_ARGUMENT (FILE_EMPTY), ABORTED (FILE_CHANGED),
  ///         the server's refusals, or the last failure after max_attempts without progress.
  absl::StatusOr<UploadResult> Upload(
      const std::string& path, const UploadOptions& options,
      const std::function<void(const UploadProgress&)>& on_progress = nullptr);

 private:
  struct Job;

  absl::Status Start(Job& job, const std::string& request_id);
  absl::Status SendOnce(Job& job);
  absl::Status Query(Job& job);
  absl::Status Recover(Job& job, const absl::Status& failure);
  absl::Status Wait(Job& job, const absl::Status& failure);

  proto::ClipService::StubInterface& stub_;
  std::mt19937_64 random_;
};

}  // namespace videonsa::client
