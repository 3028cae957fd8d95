#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"
#include "runtime/base/clock.h"
#include "runtime/telemetry/metrics.h"
#include "server/access/tenant_limits.h"
#include "server/clip_store/record_files.h"
#include "server/clip_store/storage_dir.h"
#include "server/clip_store/upload_file.h"
#include "videonsa/storage/v1/clip_record.pb.h"
#include "videonsa/v1/clip.pb.h"

namespace videonsa {

/// Limits of the clip store.
struct ClipStoreOptions {
  std::string dir;
  int64_t max_clip_bytes = int64_t{4} << 30;
  int64_t tenant_bytes = int64_t{20} << 30;
  int64_t total_bytes = int64_t{100} << 30;
  int tenant_clips = 1000;
  int tenant_uploads = 4;                        ///< open at a time
  double free_space_floor = 0.1;                 ///< share of the file system left alone
  absl::Duration default_ttl = absl::Hours(24);  ///< from the last use
  absl::Duration max_ttl = absl::Hours(24 * 30);
  absl::Duration upload_ttl = absl::Minutes(30);  ///< from the last byte
};

/// Who follows one clip. Threads: called from any thread, never under a lock of the store.
class ClipWatcher {
 public:
  virtual ~ClipWatcher() = default;
  /// The clip as of `version`; calls may arrive out of order, the higher version is the newer.
  virtual void OnClip(const v1::Clip& clip, int64_t version) = 0;
  /// No more calls: the clip was deleted, or the server drains.
  virtual void OnEnd(const absl::Status& status) = 0;
};

/// A stream's right to append to an upload; see UploadFile for epochs.
struct UploadWriter {
  std::string clip_id;
  int64_t declared_bytes = 0;
  std::shared_ptr<UploadFile> file;  ///< null if the upload is complete
  int64_t epoch = 0;
  int64_t committed_bytes = 0;
};

/// What an upload came to.
struct UploadState {
  int64_t committed_bytes = 0;
  bool complete = false;
  v1::Clip clip;
};

/// A READY clip in use: its file can be opened while `hold` lives, even if the clip is deleted.
struct ClipLease {
  MediaSource source;
  bool image = false;
  std::shared_ptr<void> hold;
};

/// Clips of all tenants on local disk, with uploads that survive crashes.
///
/// Files are `<id>.rec` (record), `<id>.part` (arriving bytes), `<id>.bin` (whole clip). A clip
/// exists while its record does; the record is written after the bytes it speaks of and removed
/// before them, so a crash leaves at worst bytes without a record, which Open removes.
/// A crash while the server fetches a clip leaves it FAILED.
/// Nothing tells one tenant that another's clip exists.
///
/// Threads: all methods may be called from any thread. Those marked [disk] wait for the disk.
class ClipStore {
 public:
  /// Opens the directory, finishes what a crash interrupted and sweeps. [disk]
  /// Errors: FAILED_PRECONDITION if the directory cannot be used.
  static absl::StatusOr<std::unique_ptr<ClipStore>> Open(const ClipStoreOptions& options,
                                                         const Clock& clock,
                                                         MetricsRegistry& metrics);
  ~ClipStore();

  /// Reserves quota for an upload, or finds the one made earlier by the same request_id, or the
  /// READY clip of the same tenant and digest. [disk]
  /// Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED (QUOTA_EXCEEDED, STORAGE_FULL).
  absl::StatusOr<v1::StartUploadResponse> StartUpload(const std::string& tenant,
                                                      const v1::StartUploadRequest& request);

  /// Reserves a clip whose bytes the server fetches itself, FETCHING and of no size yet, or finds
  /// the one made earlier by the same request_id. [disk]
  /// Errors: as StartUpload.
  struct Import {
    v1::Clip clip;
    std::string upload_id;  ///< for the fetcher alone; empty if it is under way already
  };
  absl::StatusOr<Import> StartImport(const std::string& tenant,
                                     const v1::ImportClipRequest& request);
  /// Reserves room for `bytes` of a FETCHING clip in all; `writer` may then append up to there.
  /// Errors: NOT_FOUND if it was deleted, INVALID_ARGUMENT (MEDIA_TOO_LARGE), RESOURCE_EXHAUSTED.
  absl::Status ResizeImport(UploadWriter& writer, int64_t bytes);
  /// The fetch failed: FAILED with the reason in `status`. [disk]
  void FailImport(const std::string& id, const absl::Status& status);

  /// Opens an upload for appending at `offset`. [disk; reads all stored bytes after a restart]
  /// Errors: NOT_FOUND, ABORTED (OFFSET_MISMATCH), FAILED_PRECONDITION (CLIP_FAILED).
  absl::StatusOr<UploadWriter> BeginWrite(const std::string& tenant, const std::string& upload_id,
                                          int64_t offset);

  /// Appends one chunk; with `finish` set, checks size and digest and begins probing. [disk]
  /// Errors: DATA_LOSS (CHECKSUM_MISMATCH; of a chunk: nothing appended; of the file: clip FAILED),
  ///         INVALID_ARGUMENT, ABORTED, RESOURCE_EXHAUSTED.
  absl::StatusOr<UploadState> Append(const UploadWriter& writer, const v1::UploadChunk& chunk);

  /// Makes what `writer` appended durable. [disk]
  absl::StatusOr<UploadState> Commit(const UploadWriter& writer);

  /// Bytes safely stored. [disk] Errors: NOT_FOUND.
  absl::StatusOr<UploadState> Query(const std::string& tenant, const std::string& upload_id);

  /// Drops an open upload; an unknown one is fine. [disk]
  absl::Status Abort(const std::string& tenant, const std::string& upload_id);

  /// Errors: NOT_FOUND.
  absl::StatusOr<v1::Clip> Get(const std::string& tenant, const std::string& name) const;

  /// Newest first. Errors: INVALID_ARGUMENT for a page size or token we did not make.
  absl::StatusOr<v1::ListClipsResponse> List(const std::string& tenant,
                                             const v1::ListClipsRequest& request) const;

  /// Removes a clip; leases keep its bytes. [disk] Errors: NOT_FOUND.
  absl::Status Delete(const std::string& tenant, const std::string& name);

  /// Takes a READY clip into use and renews its time to live.
  /// Errors: NOT_FOUND, FAILED_PRECONDITION (CLIP_NOT_READY, CLIP_FAILED).
  absl::StatusOr<ClipLease> Acquire(const std::string& tenant, const std::string& name);

  /// Calls `watcher` on every change from now on; returns the clip and its version.
  absl::StatusOr<std::pair<v1::Clip, int64_t>> Watch(const std::string& tenant,
                                                     const std::string& name,
                                                     std::weak_ptr<ClipWatcher> watcher);
  /// Ends all watches with `status`.
  void EndWatches(const absl::Status& status);

  /// Says what a tenant may store; without it, `options` hold for all. `limits` must not wait or
  /// call back. Requires: called before uploads come.
  void SetTenantLimits(std::function<TenantLimits(const std::string& tenant)> limits);

  /// Calls `probe` with the id of every clip that is or becomes PROBING, from any thread.
  void SetProber(std::function<void(const std::string& id)> probe);
  /// The bytes of a PROBING clip; nothing if it is gone.
  std::optional<MediaSource> ProbeSource(const std::string& id) const;
  /// Ends probing: READY, or FAILED with the reason in the status. [disk]
  void SetProbed(const std::string& id, const absl::StatusOr<v1::MediaInfo>& media);

  /// Removes what expired and writes down last uses; returns how many were removed. [disk]
  int Sweep();

 private:
  struct Entry {
    storage::v1::ClipRecord record;
    int64_t version = 1;                 // of the record, for RecordFiles
    std::shared_ptr<UploadFile> upload;  // while UPLOADING, once opened
    absl::Time saved_use = absl::InfinitePast();
    std::vector<std::weak_ptr<ClipWatcher>> watchers;
  };
  struct Change {  // what to write and whom to tell, once the lock is gone
    storage::v1::ClipRecord record;
    int64_t version = 0;
    v1::Clip clip;
    std::vector<std::weak_ptr<ClipWatcher>> watchers;
  };
  struct Usage {
    TenantLimits limits;  // of the tenant
    int64_t tenant_bytes = 0, total_bytes = 0, unwritten_bytes = 0;
    int tenant_clips = 0, tenant_uploads = 0;
  };

  ClipStore(const ClipStoreOptions& options, std::unique_ptr<StorageDir> dir, const Clock& clock,
            MetricsRegistry& metrics);

  void Load();
  bool Recover(storage::v1::ClipRecord& record) const;
  absl::Status ValidateStart(const v1::StartUploadRequest& request) const;
  absl::Status ValidateLabels(const v1::StartUploadRequest& request) const;
  /// A new clip, in `state`, without bytes; `request`'s size is what it will have.
  std::unique_ptr<Entry> NewEntry(const std::string& tenant, const v1::StartUploadRequest& request,
                                  v1::Clip::State state) const;
  absl::Status CheckSize(int64_t bytes) const;
  absl::Status CheckQuota(const Usage& usage, int64_t size, StorageDir::Space space) const;
  Usage UsageOf(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<UploadState> Complete(const UploadWriter& writer);
  void Fail(const std::string& id, absl::string_view reason, absl::string_view message);
  absl::Status Save(const Change& change);
  void Erase(const std::string& id, absl::string_view reason);
  void ReleaseLease(const std::string& id);
  void RefreshGauges();

  Entry* Find(const std::string& tenant, const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Entry* FindUpload(const std::string& tenant, const std::string& upload_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::Clip ClipOf(const Entry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time ExpiryOf(const Entry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Change Touch(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ClipStoreOptions options_;
  const std::unique_ptr<StorageDir> dir_;
  const Clock& clock_;
  RecordFiles records_;
  struct Metrics;
  const std::unique_ptr<const Metrics> metrics_;

  mutable absl::Mutex mutex_;  // never held while waiting for the disk
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, int> leases_ ABSL_GUARDED_BY(mutex_);  // by clip id
  absl::flat_hash_map<std::string, int64_t> doomed_
      ABSL_GUARDED_BY(mutex_);  // deleted in use: bytes
  std::function<void(const std::string&)> prober_ ABSL_GUARDED_BY(mutex_);
  std::function<TenantLimits(const std::string&)> limits_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<void> gauges_;  // last: its refresh reads what is above
};

}  // namespace videonsa
