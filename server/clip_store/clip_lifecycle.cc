// The part of ClipStore that is not uploading: opening, reading, use, probing, expiry, deletion.
#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"
#include "server/clip_store/clip_errors.h"
#include "server/clip_store/clip_store.h"
#include "server/clip_store/clip_store_metrics.h"
#include "server/proto_time.h"

namespace videonsa {
namespace {

constexpr char kPart[] = ".part";
constexpr char kBin[] = ".bin";
constexpr char kRecord[] = ".rec";
constexpr int kDefaultPage = 50;
constexpr int kMaxPage = 100;
// A use is written down if the last one written is older: a crash forgets at most this much.
constexpr absl::Duration kUseGranularity = absl::Minutes(1);

}  // namespace

ClipStore::Metrics::Metrics(MetricsRegistry& registry) {
  upload_bytes = registry.AddCounter("videonsa_upload_bytes_total", "Bytes of clips received.");
  const auto outcome = [&registry](const char* name) {
    return registry.AddCounter("videonsa_uploads_total", "Ended uploads.", {{"outcome", name}});
  };
  complete = outcome("complete");
  aborted = outcome("aborted");
  expired = outcome("expired");
  checksum = outcome("checksum");
  quota = outcome("quota");
  const auto deletion = [&registry](const char* reason) {
    return registry.AddCounter("videonsa_clip_deletions_total", "Clips removed.",
                               {{"reason", reason}});
  };
  deleted_request = deletion("request");
  deleted_ttl = deletion("ttl");
  constexpr std::array<const char*, v1::Clip::State_ARRAYSIZE> kStates = {
      nullptr, "uploading", "fetching", "probing", "ready", "failed"};
  for (size_t i = 1; i < kStates.size(); ++i) {
    clips[i] =
        registry.AddGauge("videonsa_clips", "Stored clips by state.", {{"state", kStates[i]}});
  }
  storage_bytes =
      registry.AddGauge("videonsa_clip_storage_bytes", "Bytes that clips take or have reserved.");
  capacity_bytes =
      registry.AddGauge("videonsa_clip_storage_capacity_bytes", "Bytes that clips may take.");
}

ClipStore::ClipStore(const ClipStoreOptions& options, std::unique_ptr<StorageDir> dir,
                     const Clock& clock, MetricsRegistry& metrics)
    : options_(options),
      dir_(std::move(dir)),
      clock_(clock),
      records_(*dir_),
      metrics_(std::make_unique<const Metrics>(metrics)) {
  metrics_->capacity_bytes.Set(static_cast<double>(options.total_bytes));
  gauges_ = metrics.BeforeScrape([this] { RefreshGauges(); });
}

ClipStore::~ClipStore() = default;

absl::StatusOr<std::unique_ptr<ClipStore>> ClipStore::Open(const ClipStoreOptions& options,
                                                           const Clock& clock,
                                                           MetricsRegistry& metrics) {
  VNSA_ASSIGN_OR_RETURN(std::unique_ptr<StorageDir> dir, StorageDir::Open(options.dir));
  std::unique_ptr<ClipStore> store(new ClipStore(options, std::move(dir), clock, metrics));
  store->Load();
  store->Sweep();
  return store;
}

void ClipStore::Load() {
  std::set<std::string> known;
  for (storage::v1::ClipRecord& record : records_.LoadAll()) {
    const std::string id = ClipIdOf(record.clip().name());
    if (!Recover(record)) {
      Log(LogLevel::kError, "clip bytes are missing, clip removed", {{"clip", id}});
      continue;  // its record is among the unknown files below
    }
    known.insert({id + kRecord, id + kPart, id + kBin});
    auto entry = std::make_unique<Entry>();
    entry->saved_use = FromProto(record.last_use_time());
    entry->record = std::move(record);
    absl::MutexLock lock(&mutex_);
    entries_[id] = std::move(entry);
  }
  for (const std::string& name : dir_->List()) {
    if (known.count(name) == 0) dir_->Remove(name);
  }
}

// Brings files and record together again after a crash; false if bytes are lost.
bool ClipStore::Recover(storage::v1::ClipRecord& record) const {
  const std::string id = ClipIdOf(record.clip().name());
  const int64_t size = record.clip().size_bytes();
  switch (record.clip().state()) {
    case v1::Clip::STATE_UPLOADING:
      // All bytes were there and renamed, but the record was not written: the client's repeat of
      // its last message completes it again.
      if (dir_->SizeOf(id + kBin) >= 0 && !dir_->Rename(id + kBin, id + kPart).ok()) return false;
      return dir_->SizeOf(id + kPart) <= size;
    case v1::Clip::STATE_PROBING:
    case v1::Clip::STATE_READY:
      return dir_->SizeOf(id + kBin) == size;
    case v1::Clip::STATE_FETCHING:
      record.mutable_clip()->set_state(v1::Clip::STATE_FAILED);
      record.mutable_clip()->set_error_reason("FETCH_FAILED");
      record.mutable_clip()->set_error_message("the server ended while it fetched the url");
      [[fallthrough]];
    case v1::Clip::STATE_FAILED:
      dir_->Remove(id + kPart);
      dir_->Remove(id + kBin);
      return true;
    default:
      return false;
  }
}

absl::Time ClipStore::ExpiryOf(const Entry& entry) const {
  const absl::Duration ttl = entry.record.clip().state() == v1::Clip::STATE_UPLOADING
                                 ? options_.upload_ttl
                                 : FromProto(entry.record.ttl()).value_or(options_.default_ttl);
  return FromProto(entry.record.last_use_time()) + ttl;
}

v1::Clip ClipStore::ClipOf(const Entry& entry) const {
  v1::Clip clip = entry.record.clip();
  *clip.mutable_expire_time() = ToProto(ExpiryOf(entry));
  return clip;
}

// Counts a use and says what to write and tell after the lock is released.
ClipStore::Change ClipStore::Touch(Entry& entry) {
  *entry.record.mutable_last_use_time() = ToProto(clock_.Now());
  ++entry.version;
  return Change{entry.record, entry.version, ClipOf(entry), entry.watchers};
}

absl::Status ClipStore::Save(const Change& change) {
  const absl::Status saved = records_.Save(change.record, change.version);
  for (const std::weak_ptr<ClipWatcher>& weak : change.watchers) {
    if (const std::shared_ptr<ClipWatcher> watcher = weak.lock()) {
      watcher->OnClip(change.clip, change.version);
    }
  }
  if (!saved.ok()) return saved;
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(ClipIdOf(change.record.clip().name()));
  if (found != entries_.end()) {
    found->second->saved_use =
        std::max(found->second->saved_use, FromProto(change.record.last_use_time()));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Clip> ClipStore::Get(const std::string& tenant, const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(ClipIdOf(name));
  if (found == entries_.end() || found->second->record.tenant() != tenant) {
    return ClipNotFound(name);
  }
  return ClipOf(*found->second);
}

absl::StatusOr<v1::ListClipsResponse> ClipStore::List(const std::string& tenant,
                                                      const v1::ListClipsRequest& request) const {
  if (request.page_size() < 0 || request.page_size() > kMaxPage) {
    return InvalidField("page_size",
                        absl::StrCat("is ", request.page_size(), ", must be 0 to ", kMaxPage));
  }
  using Key = std::pair<int64_t, std::string>;  // (creation in ns, id), newest is greatest
  Key before{std::numeric_limits<int64_t>::max(), ""};
  if (!request.page_token().empty()) {
    const std::vector<std::string> parts = absl::StrSplit(request.page_token(), '.');
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &before.first)) {
      return InvalidField("page_token", "was not made by this server");
    }
    before.second = parts[1];
  }
  const size_t page =
      static_cast<size_t>(request.page_size() == 0 ? kDefaultPage : request.page_size());
  std::vector<std::pair<Key, v1::Clip>> clips;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, entry] : entries_) {
      if (entry->record.tenant() != tenant) continue;
      Key key{absl::ToUnixNanos(FromProto(entry->record.clip().create_time())), id};
      if (key < before) clips.emplace_back(std::move(key), ClipOf(*entry));
    }
  }
  std::sort(clips.begin(), clips.end(),
            [](const auto& a, const auto& b) { return b.first < a.first; });
  v1::ListClipsResponse response;
  for (size_t i = 0; i < std::min(page, clips.size()); ++i) {
    response.add_clips()->Swap(&clips[i].second);
  }
  if (clips.size() > page) {
    const Key& last = clips[page - 1].first;
    response.set_next_page_token(absl::StrCat(last.first, ".", last.second));
  }
  return response;
}

absl::StatusOr<ClipLease> ClipStore::Acquire(const std::string& tenant, const std::string& name) {
  absl::MutexLock lock(&mutex_);
  Entry* const entry = Find(tenant, ClipIdOf(name));
  if (entry == nullptr) return ClipNotFound(name);
  const v1::Clip& clip = entry->record.clip();
  if (clip.state() == v1::Clip::STATE_FAILED) return ClipFailed(clip);
  if (clip.state() != v1::Clip::STATE_READY) return ClipNotReady(clip);
  Touch(*entry);  // written down by the next sweep
  const std::string id = ClipIdOf(name);
  ++leases_[id];
  ClipLease lease;
  lease.source.path = dir_->PathOf(id + kBin);
  std::copy(clip.sha256().begin(), clip.sha256().end(), lease.source.sha256.begin());
  lease.image = clip.media().image();
  lease.hold = std::shared_ptr<void>(nullptr, [this, id](void*) { ReleaseLease(id); });
  return lease;
}

void ClipStore::ReleaseLease(const std::string& id) {
  {
    absl::MutexLock lock(&mutex_);
    if (--leases_[id] > 0) return;
    leases_.erase(id);
    if (doomed_.erase(id) == 0) return;
  }
  dir_->Remove(id + kBin);
}

absl::Status ClipStore::Delete(const std::string& tenant, const std::string& name) {
  const std::string id = ClipIdOf(name);
  {
    absl::MutexLock lock(&mutex_);
    if (Find(tenant, id) == nullptr) return ClipNotFound(name);
  }
  metrics_->deleted_request.Add();
  Erase(id, "deleted");
  return absl::OkStatus();
}

// Removes record, then bytes; bytes in use go with their last lease.
void ClipStore::Erase(const std::string& id, absl::string_view reason) {
  std::unique_ptr<Entry> entry;
  bool leased;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    entry = std::move(found->second);
    entries_.erase(found);
    leased = leases_.contains(id);
    if (leased) doomed_[id] = entry->record.clip().size_bytes();
  }
  const absl::Status removed = records_.Remove(id);
  if (!removed.ok()) Log(LogLevel::kError, "clip record not removed durably", {{"clip", id}});
  dir_->Remove(id + kPart);
  if (!leased) dir_->Remove(id + kBin);
  for (const std::weak_ptr<ClipWatcher>& weak : entry->watchers) {
    if (const std::shared_ptr<ClipWatcher> watcher = weak.lock()) {
      watcher->OnEnd(ClipNotFound(entry->record.clip().name()));
    }
  }
  if (!reason.empty()) {
    Log(LogLevel::kInfo, "clip removed", {{"clip", id}, {"reason", reason}});
  }
}

absl::StatusOr<std::pair<v1::Clip, int64_t>> ClipStore::Watch(const std::string& tenant,
                                                              const std::string& name,
                                                              std::weak_ptr<ClipWatcher> watcher) {
  absl::MutexLock lock(&mutex_);
  Entry* const entry = Find(tenant, ClipIdOf(name));
  if (entry == nullptr) return ClipNotFound(name);
  auto& watchers = entry->watchers;
  watchers.erase(std::remove_if(watchers.begin(), watchers.end(),
                                [](const auto& weak) { return weak.expired(); }),
                 watchers.end());
  watchers.push_back(std::move(watcher));
  return std::make_pair(ClipOf(*entry), entry->version);
}

void ClipStore::EndWatches(const absl::Status& status) {
  std::vector<std::weak_ptr<ClipWatcher>> watchers;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [id, entry] : entries_) {
      watchers.insert(watchers.end(), entry->watchers.begin(), entry->watchers.end());
      entry->watchers.clear();
    }
  }
  for (const std::weak_ptr<ClipWatcher>& weak : watchers) {
    if (const std::shared_ptr<ClipWatcher> watcher = weak.lock()) watcher->OnEnd(status);
  }
}

void ClipStore::SetTenantLimits(std::function<TenantLimits(const std::string&)> limits) {
  absl::MutexLock lock(&mutex_);
  limits_ = std::move(limits);
}

void ClipStore::SetProber(std::function<void(const std::string& id)> probe) {
  std::vector<std::string> waiting;
  {
    absl::MutexLock lock(&mutex_);
    prober_ = probe;
    for (const auto& [id, entry] : entries_) {
      if (entry->record.clip().state() == v1::Clip::STATE_PROBING) waiting.push_back(id);
    }
  }
  for (const std::string& id : waiting) {
    if (probe) probe(id);
  }
}

std::optional<MediaSource> ClipStore::ProbeSource(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second->record.clip().state() != v1::Clip::STATE_PROBING) {
    return std::nullopt;
  }
  MediaSource source;
  source.path = dir_->PathOf(id + kBin);
  const std::string& digest = found->second->record.clip().sha256();
  std::copy(digest.begin(), digest.end(), source.sha256.begin());
  return source;
}

void ClipStore::SetProbed(const std::string& id, const absl::StatusOr<v1::MediaInfo>& media) {
  if (!media.ok()) {
    const std::optional<ErrorInfo> info = GetErrorInfo(media.status());
    return Fail(id, info ? info->reason : "INTERNAL",
                info ? absl::string_view(media.status().message()) : "the clip cannot be probed");
  }
  Change change;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    v1::Clip& clip = *found->second->record.mutable_clip();
    if (clip.state() != v1::Clip::STATE_PROBING) return;
    clip.set_state(v1::Clip::STATE_READY);
    *clip.mutable_media() = *media;
    change = Touch(*found->second);
  }
  const absl::Status saved = Save(change);
  if (!saved.ok()) Log(LogLevel::kError, "clip record not written", {{"clip", id}});
}

void ClipStore::Fail(const std::string& id, absl::string_view reason, absl::string_view message) {
  Change change;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    v1::Clip& clip = *found->second->record.mutable_clip();
    clip.set_state(v1::Clip::STATE_FAILED);
    clip.set_error_reason(std::string(reason));
    clip.set_error_message(std::string(message));
    found->second->upload.reset();
    change = Touch(*found->second);
  }
  const absl::Status saved = Save(change);
  if (!saved.ok()) Log(LogLevel::kError, "clip record not written", {{"clip", id}});
  dir_->Remove(id + kPart);
  dir_->Remove(id + kBin);
}

int ClipStore::Sweep() {
  std::vector<std::string> expired;
  std::vector<Change> uses;
  int uploads = 0;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = clock_.Now();
    for (auto& [id, entry] : entries_) {
      if (ExpiryOf(*entry) <= now && !leases_.contains(id)) {
        expired.push_back(id);
        uploads += entry->record.clip().state() == v1::Clip::STATE_UPLOADING;
      } else if (FromProto(entry->record.last_use_time()) - entry->saved_use > kUseGranularity) {
        uses.push_back(Change{entry->record, ++entry->version, {}, {}});
      }
    }
  }
  for (const std::string& id : expired) Erase(id, "expired");
  metrics_->expired.Add(uploads);
  metrics_->deleted_ttl.Add(static_cast<double>(expired.size()) - uploads);
  for (const Change& use : uses) {
    if (!Save(use).ok()) Log(LogLevel::kWarning, "last use of a clip not written");
  }
  return static_cast<int>(expired.size());
}

void ClipStore::RefreshGauges() {
  std::array<int, v1::Clip::State_ARRAYSIZE> counts{};
  Usage usage;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, entry] : entries_) ++counts[entry->record.clip().state()];
    usage = UsageOf("");
  }
  for (size_t i = 1; i < counts.size(); ++i) metrics_->clips[i].Set(counts[i]);
  metrics_->storage_bytes.Set(static_cast<double>(usage.total_bytes));
}

}  // namespace videonsa
