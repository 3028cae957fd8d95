#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/clip_store/storage_dir.h"
#include "videonsa/storage/v1/clip_record.pb.h"

namespace videonsa {

/// Id of a clip: the part of its name after "clips/"; empty if `name` is no clip's name.
std::string ClipIdOf(absl::string_view name);

/// One file per clip record, replaced as a whole: magic, CRC32C, serialized record.
///
/// Threads: all methods may be called from any thread; they wait for the disk.
class RecordFiles {
 public:
  explicit RecordFiles(const StorageDir& dir) : dir_(dir) {}

  /// All records that can be read; those that cannot are logged and removed.
  std::vector<storage::v1::ClipRecord> LoadAll() const;

  /// Stores `record` durably unless a later version was stored or it was removed meanwhile.
  absl::Status Save(const storage::v1::ClipRecord& record, int64_t version);

  /// Removes the record of clip `id` for good.
  absl::Status Remove(const std::string& id);

 private:
  static constexpr int64_t kRemoved = std::numeric_limits<int64_t>::max();

  const StorageDir& dir_;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, int64_t> versions_ ABSL_GUARDED_BY(mutex_);  // on disk, by id
};

}  // namespace videonsa
