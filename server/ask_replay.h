#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "server/ask_run.h"
#include "server/server_core.h"

namespace videonsa {

/// Answers by tenant and request_id: running ones are joined, finished ones are kept for a while,
/// failed ones are forgotten, so that a repeat tries again.
///
/// When full, the oldest answers go first. Threads: any. Lifetime: outlives its runs.
class AskReplay {
 public:
  AskReplay(absl::Duration ttl, int64_t max_bytes, const Clock& clock)
      : ttl_(ttl), max_bytes_(max_bytes), clock_(clock) {}

  struct Found {
    std::shared_ptr<AskRun> run;
    bool fresh = false;  ///< made now by `make`; the caller submits it
  };

  /// The run of `request_id` among those of `scope` (a tenant's questions of one kind); a new one
  /// if the id is empty or unknown.
  /// Errors: INVALID_ARGUMENT: the id is too long, or came with another `question` before
  ///         (REQUEST_ID_REUSED).
  absl::StatusOr<Found> RunFor(ServerCore& core, const std::string& scope,
                               const std::string& request_id,
                               const google::protobuf::MessageLite& question);

 private:
  struct Entry {
    Sha256Digest question;
    std::shared_ptr<AskRun> run;
    int64_t bytes = -1;  // of the answer; -1: running
    absl::Duration finished;
    std::list<std::string>::iterator age;  // while finished
  };

  void Finished(const std::string& key, const AskRun* run, const absl::Status& status,
                int64_t bytes);
  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration ttl_;
  const int64_t max_bytes_;
  const Clock& clock_;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> oldest_ ABSL_GUARDED_BY(mutex_);  // finished keys
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace videonsa
