#include "server/clip_store/clip_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"
#include "server/clip_store/clip_errors.h"
#include "server/clip_store/clip_store_metrics.h"
#include "server/proto_time.h"
#include "server/quota_error.h"
#include "server/random_id.h"
#include "server/request_id.h"

namespace videonsa {
namespace {

constexpr char kPart[] = ".part";
constexpr char kBin[] = ".bin";
constexpr int kMaxChunkBytes = 1 << 20;
constexpr size_t kMaxDisplayNameBytes = 256;
constexpr size_t kDigestBytes = 32;

}  // namespace

absl::StatusOr<v1::StartUploadResponse> ClipStore::StartUpload(
    const std::string& tenant, const v1::StartUploadRequest& request) {
  VNSA_RETURN_IF_ERROR(ValidateStart(request));
  const StorageDir::Space space = dir_->FreeSpace();
  v1::StartUploadResponse response;
  response.set_max_chunk_bytes(kMaxChunkBytes);
  Change change;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [id, entry] : entries_) {
      const storage::v1::ClipRecord& record = entry->record;
      if (record.tenant() != tenant || record.clip().state() == v1::Clip::STATE_FAILED) continue;
      const bool repeat =
          !request.request_id().empty() && record.request_id() == request.request_id();
      const bool stored = !request.sha256().empty() &&
                          record.clip().state() == v1::Clip::STATE_READY &&
                          record.clip().sha256() == request.sha256();
      if (repeat && (record.clip().size_bytes() != request.size_bytes() ||
                     record.expected_sha256() != request.sha256())) {
        return MakeError(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED",
                         "request_id: used before with another size or digest");
      }
      if (!repeat && !stored) continue;
      change = Touch(*entry);
      *response.mutable_clip() = change.clip;
      *response.mutable_expire_time() = change.clip.expire_time();
      response.set_already_stored(record.clip().state() == v1::Clip::STATE_READY);
      if (!response.already_stored()) response.set_upload_id(record.upload_id());
      break;
    }
    if (!response.has_clip()) {
      if (absl::Status quota = CheckQuota(UsageOf(tenant), request.size_bytes(), space);
          !quota.ok()) {
        metrics_->quota.Add();
        return quota;
      }
      auto entry = NewEntry(tenant, request, v1::Clip::STATE_UPLOADING);
      change = Touch(*entry);
      *response.mutable_clip() = change.clip;
      *response.mutable_expire_time() = change.clip.expire_time();
      response.set_upload_id(entry->record.upload_id());
      entries_[ClipIdOf(change.clip.name())] = std::move(entry);
    }
  }
  if (absl::Status saved = Save(change); !saved.ok()) {
    if (change.version == 2) Erase(ClipIdOf(change.clip.name()), "");
    return saved;
  }
  if (!response.already_stored()) {
    VNSA_ASSIGN_OR_RETURN(const UploadState state, Query(tenant, response.upload_id()));
    response.set_committed_size(state.committed_bytes);
  }
  return response;
}

absl::Status ClipStore::ValidateStart(const v1::StartUploadRequest& request) const {
  if (request.size_bytes() <= 0) {
    return InvalidField("size_bytes",
                        absl::StrCat("is ", request.size_bytes(), ", must be at least 1"));
  }
  VNSA_RETURN_IF_ERROR(CheckSize(request.size_bytes()));
  return ValidateLabels(request);
}

absl::Status ClipStore::CheckSize(int64_t bytes) const {
  if (bytes <= options_.max_clip_bytes) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   ErrorInfo{.reason = "MEDIA_TOO_LARGE",
                             .metadata = {{"size_bytes", absl::StrCat(bytes)},
                                          {"limit", absl::StrCat(options_.max_clip_bytes)}},
                             .field = "size_bytes"},
                   absl::StrCat("size_bytes: is ", bytes, ", limit ", options_.max_clip_bytes));
}

absl::Status ClipStore::ValidateLabels(const v1::StartUploadRequest& request) const {
  if (!request.sha256().empty() && request.sha256().size() != kDigestBytes) {
    return InvalidField("sha256", absl::StrCat("has ", request.sha256().size(), " bytes, not 32"));
  }
  if (request.display_name().size() > kMaxDisplayNameBytes) {
    return InvalidField("display_name", absl::StrCat("has ", request.display_name().size(),
                                                     " bytes, limit ", kMaxDisplayNameBytes));
  }
  VNSA_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  if (request.has_ttl()) {
    const std::optional<absl::Duration> ttl = FromProto(request.ttl());
    if (!ttl || *ttl < absl::Minutes(1) || *ttl > options_.max_ttl) {
      return InvalidField("ttl", absl::StrCat("must be between 60 s and ",
                                              absl::ToInt64Seconds(options_.max_ttl), " s"));
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<ClipStore::Entry> ClipStore::NewEntry(const std::string& tenant,
                                                      const v1::StartUploadRequest& request,
                                                      v1::Clip::State state) const {
  auto entry = std::make_unique<Entry>();
  storage::v1::ClipRecord& record = entry->record;
  record.set_tenant(tenant);
  record.set_upload_id(RandomId());
  record.set_request_id(request.request_id());
  record.set_expected_sha256(request.sha256());
  *record.mutable_ttl() = request.has_ttl() ? request.ttl() : ToProto(options_.default_ttl);
  v1::Clip& clip = *record.mutable_clip();
  clip.set_name(absl::StrCat("clips/", RandomId()));
  clip.set_state(state);
  clip.set_display_name(request.display_name());
  clip.set_size_bytes(request.size_bytes());
  *clip.mutable_create_time() = ToProto(clock_.Now());
  return entry;
}

ClipStore::Usage ClipStore::UsageOf(const std::string& tenant) const {
  Usage usage;
  usage.limits = limits_ ? limits_(tenant)
                         : TenantLimits{.clip_bytes = options_.tenant_bytes,
                                        .clips = options_.tenant_clips,
                                        .uploads = options_.tenant_uploads};
  for (const auto& [id, entry] : entries_) {
    const v1::Clip& clip = entry->record.clip();
    const bool own = entry->record.tenant() == tenant;
    const bool uploading = IsArriving(clip);
    usage.tenant_clips += own;
    usage.tenant_uploads += own && uploading;
    if (clip.state() == v1::Clip::STATE_FAILED) continue;  // has no bytes
    usage.total_bytes += clip.size_bytes();
    if (own) usage.tenant_bytes += clip.size_bytes();
    if (uploading) usage.unwritten_bytes += clip.size_bytes();
  }
  for (const auto& [id, bytes] : doomed_) usage.total_bytes += bytes;
  return usage;
}

absl::Status ClipStore::CheckQuota(const Usage& usage, int64_t size,
                                   StorageDir::Space space) const {
  const TenantLimits& limits = usage.limits;
  if (usage.tenant_clips >= limits.clips) {
    return OverQuota("clips", usage.tenant_clips + 1, limits.clips);
  }
  if (usage.tenant_uploads >= limits.uploads) {
    return OverQuota("open_uploads", usage.tenant_uploads + 1, limits.uploads);
  }
  if (usage.tenant_bytes + size > limits.clip_bytes) {
    return OverQuota("clip_bytes", usage.tenant_bytes + size, limits.clip_bytes);
  }
  const auto floor =
      static_cast<int64_t>(options_.free_space_floor * static_cast<double>(space.total_bytes));
  if (usage.total_bytes + size > options_.total_bytes ||
      space.free_bytes - usage.unwritten_bytes - size < floor) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     ErrorInfo{.reason = "STORAGE_FULL",
                               .metadata = {{"size_bytes", absl::StrCat(size)}},
                               .retry_after = absl::Minutes(1)},
                     absl::StrCat("the server has no room for ", size, " more bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<UploadWriter> ClipStore::BeginWrite(const std::string& tenant,
                                                   const std::string& upload_id, int64_t offset) {
  UploadWriter writer;
  {
    absl::MutexLock lock(&mutex_);
    Entry* const entry = FindUpload(tenant, upload_id);
    if (entry == nullptr) return UploadNotFound();
    const v1::Clip& clip = entry->record.clip();
    writer.clip_id = ClipIdOf(clip.name());
    writer.declared_bytes = clip.size_bytes();
    if (clip.state() == v1::Clip::STATE_FAILED) return ClipFailed(clip);
    if (!IsArriving(clip)) {  // complete: a repeat of the last chunk
      if (offset != clip.size_bytes()) return OffsetMismatch(offset, clip.size_bytes());
      writer.committed_bytes = clip.size_bytes();
      return writer;
    }
    if (entry->upload == nullptr) {
      const std::string name = writer.clip_id + kPart;
      const int64_t size = dir_->SizeOf(name);
      VNSA_ASSIGN_OR_RETURN(UniqueFd fd, size < 0 ? dir_->CreateFile(name) : dir_->OpenFile(name));
      entry->upload = std::make_shared<UploadFile>(std::move(fd), std::max<int64_t>(size, 0));
    }
    writer.file = entry->upload;
  }
  VNSA_ASSIGN_OR_RETURN(writer.committed_bytes, writer.file->Commit());
  if (offset != writer.committed_bytes) return OffsetMismatch(offset, writer.committed_bytes);
  VNSA_ASSIGN_OR_RETURN(writer.epoch, writer.file->BeginEpoch());
  return writer;
}

absl::StatusOr<UploadState> ClipStore::Append(const UploadWriter& writer,
                                              const v1::UploadChunk& chunk) {
  const auto size = static_cast<int64_t>(chunk.data().size());
  if (size > kMaxChunkBytes) {
    return InvalidField("chunk.data", absl::StrCat("has ", size, " bytes, limit ", kMaxChunkBytes));
  }
  if (chunk.has_crc32c() && Crc32c(chunk.data()) != chunk.crc32c()) {
    return MakeError(absl::StatusCode::kDataLoss,
                     ErrorInfo{.reason = "CHECKSUM_MISMATCH",
                               .metadata = {{"offset", absl::StrCat(chunk.offset())}}},
                     absl::StrCat("chunk at offset ", chunk.offset(),
                                  " does not match its crc32c; nothing of it was stored"));
  }
  if (writer.file == nullptr) {  // complete before this stream began
    if (size == 0 && chunk.finish() && chunk.offset() == writer.declared_bytes) {
      return Complete(writer);
    }
    return OffsetMismatch(chunk.offset(), writer.declared_bytes);
  }
  if (chunk.offset() > writer.declared_bytes - size || chunk.offset() < 0) {
    return InvalidField("chunk.offset",
                        absl::StrCat("chunk ends at ", chunk.offset(), " + ", size,
                                     ", the declared size is ", writer.declared_bytes));
  }
  if (chunk.finish() && chunk.offset() + size != writer.declared_bytes) {
    return InvalidField("chunk.finish",
                        absl::StrCat("set at ", chunk.offset() + size,
                                     " bytes, the declared size is ", writer.declared_bytes));
  }
  UploadState state;
  VNSA_ASSIGN_OR_RETURN(state.committed_bytes,
                        writer.file->Append(writer.epoch, chunk.offset(), chunk.data()));
  metrics_->upload_bytes.Add(static_cast<double>(size));
  if (chunk.finish()) return Complete(writer);
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(writer.clip_id);
  if (entry == entries_.end()) return UploadNotFound();  // deleted meanwhile
  Touch(*entry->second);
  return state;
}

absl::StatusOr<UploadState> ClipStore::Complete(const UploadWriter& writer) {
  UploadState state{.committed_bytes = writer.declared_bytes, .complete = true};
  std::string digest;  // empty: it was complete before
  if (writer.file != nullptr) {
    VNSA_ASSIGN_OR_RETURN(const Sha256Digest bytes, writer.file->Finish(writer.epoch));
    digest.assign(bytes.begin(), bytes.end());
  }
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(writer.clip_id);
    if (found == entries_.end()) return UploadNotFound();
    storage::v1::ClipRecord& record = found->second->record;
    if (digest.empty()) {
      state.clip = ClipOf(*found->second);
      return state;
    }
    if (record.expected_sha256().empty() || record.expected_sha256() == digest) {
      record.mutable_clip()->set_sha256(digest);
    } else {
      digest.clear();
    }
  }
  if (digest.empty()) {
    metrics_->checksum.Add();
    Fail(writer.clip_id, "CHECKSUM_MISMATCH", "the bytes do not match the announced sha256");
    return MakeError(absl::StatusCode::kDataLoss, "CHECKSUM_MISMATCH",
                     "the stored bytes do not match the announced sha256; upload again");
  }
  VNSA_RETURN_IF_ERROR(dir_->Rename(writer.clip_id + kPart, writer.clip_id + kBin));
  Change change;
  std::function<void(const std::string&)> prober;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(writer.clip_id);
    if (found == entries_.end()) {  // deleted meanwhile
      dir_->Remove(writer.clip_id + kBin);
      return UploadNotFound();
    }
    found->second->upload.reset();
    found->second->record.mutable_clip()->set_state(v1::Clip::STATE_PROBING);
    change = Touch(*found->second);
    prober = prober_;
  }
  VNSA_RETURN_IF_ERROR(Save(change));
  metrics_->complete.Add();
  if (prober) prober(writer.clip_id);
  state.clip = change.clip;
  return state;
}

absl::StatusOr<UploadState> ClipStore::Commit(const UploadWriter& writer) {
  UploadState state{.committed_bytes = writer.committed_bytes, .complete = writer.file == nullptr};
  if (writer.file != nullptr) {
    VNSA_ASSIGN_OR_RETURN(state.committed_bytes, writer.file->Commit());
  }
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(writer.clip_id);
  if (found == entries_.end()) return UploadNotFound();
  state.clip = ClipOf(*found->second);
  return state;
}

absl::StatusOr<UploadState> ClipStore::Query(const std::string& tenant,
                                             const std::string& upload_id) {
  UploadState state;
  std::shared_ptr<UploadFile> file;
  {
    absl::MutexLock lock(&mutex_);
    Entry* const entry = FindUpload(tenant, upload_id);
    if (entry == nullptr) return UploadNotFound();
    state.clip = ClipOf(*entry);
    if (state.clip.state() == v1::Clip::STATE_FAILED) return ClipFailed(state.clip);
    if (state.clip.state() != v1::Clip::STATE_UPLOADING) {
      state.complete = true;
      state.committed_bytes = state.clip.size_bytes();
      return state;
    }
    file = entry->upload;
  }
  if (file != nullptr) {
    VNSA_ASSIGN_OR_RETURN(state.committed_bytes, file->Commit());
  } else {
    state.committed_bytes = std::max<int64_t>(0, dir_->SizeOf(ClipIdOf(state.clip.name()) + kPart));
  }
  return state;
}

absl::Status ClipStore::Abort(const std::string& tenant, const std::string& upload_id) {
  std::string id;
  {
    absl::MutexLock lock(&mutex_);
    Entry* const entry = FindUpload(tenant, upload_id);
    if (entry == nullptr) return absl::OkStatus();
    const v1::Clip::State state = entry->record.clip().state();
    if (state != v1::Clip::STATE_UPLOADING && state != v1::Clip::STATE_FAILED) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "UPLOAD_COMPLETE",
                       "the upload is complete; delete the clip instead");
    }
    id = ClipIdOf(entry->record.clip().name());
  }
  metrics_->aborted.Add();
  Erase(id, "");
  return absl::OkStatus();
}

ClipStore::Entry* ClipStore::Find(const std::string& tenant, const std::string& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second->record.tenant() != tenant) return nullptr;
  return found->second.get();
}

ClipStore::Entry* ClipStore::FindUpload(const std::string& tenant, const std::string& upload_id) {
  if (upload_id.empty()) return nullptr;
  for (auto& [id, entry] : entries_) {
    if (entry->record.upload_id() == upload_id && entry->record.tenant() == tenant) {
      return entry.get();
    }
  }
  return nullptr;
}

}  // namespace videonsa
