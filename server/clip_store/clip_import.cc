// The part of ClipStore for clips that the server fetches itself.
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/clip_store/clip_errors.h"
#include "server/clip_store/clip_store.h"
#include "server/clip_store/clip_store_metrics.h"

namespace videonsa {

absl::StatusOr<ClipStore::Import> ClipStore::StartImport(const std::string& tenant,
                                                         const v1::ImportClipRequest& request) {
  v1::StartUploadRequest labels;
  labels.set_request_id(request.request_id());
  labels.set_sha256(request.sha256());
  labels.set_display_name(request.display_name());
  if (request.has_ttl()) *labels.mutable_ttl() = request.ttl();
  VNSA_RETURN_IF_ERROR(ValidateLabels(labels));
  const StorageDir::Space space = dir_->FreeSpace();
  Import import;
  Change change;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [other, entry] : entries_) {
      const storage::v1::ClipRecord& record = entry->record;
      if (request.request_id().empty() || record.tenant() != tenant ||
          record.request_id() != request.request_id() ||
          record.clip().state() == v1::Clip::STATE_FAILED) {
        continue;
      }
      import.clip = ClipOf(*entry);
      return import;
    }
    if (absl::Status quota = CheckQuota(UsageOf(tenant), 0, space); !quota.ok()) {
      metrics_->quota.Add();
      return quota;
    }
    auto entry = NewEntry(tenant, labels, v1::Clip::STATE_FETCHING);
    change = Touch(*entry);
    import.clip = change.clip;
    import.upload_id = entry->record.upload_id();
    entries_[ClipIdOf(import.clip.name())] = std::move(entry);
  }
  if (absl::Status saved = Save(change); !saved.ok()) {
    Erase(ClipIdOf(import.clip.name()), "");
    return saved;
  }
  return import;
}

absl::Status ClipStore::ResizeImport(UploadWriter& writer, int64_t bytes) {
  VNSA_RETURN_IF_ERROR(CheckSize(bytes));
  const StorageDir::Space space = dir_->FreeSpace();
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(writer.clip_id);
  if (found == entries_.end()) return UploadNotFound();
  storage::v1::ClipRecord& record = found->second->record;
  VNSA_CHECK(record.clip().state() == v1::Clip::STATE_FETCHING);
  Usage usage = UsageOf(record.tenant());
  --usage.tenant_clips;  // itself
  --usage.tenant_uploads;
  if (absl::Status quota = CheckQuota(usage, bytes - record.clip().size_bytes(), space);
      !quota.ok()) {
    metrics_->quota.Add();
    return quota;
  }
  record.mutable_clip()->set_size_bytes(bytes);
  writer.declared_bytes = bytes;
  return absl::OkStatus();
}

void ClipStore::FailImport(const std::string& id, const absl::Status& status) {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  Fail(id, info ? info->reason : "FETCH_FAILED",
       info ? absl::string_view(status.message()) : "the url could not be fetched");
}

}  // namespace videonsa
