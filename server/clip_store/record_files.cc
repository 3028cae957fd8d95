#include "server/clip_store/record_files.h"

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"

namespace videonsa {
namespace {

using storage::v1::ClipRecord;

constexpr char kMagic[] = "VNR1";
constexpr size_t kMagicBytes = 4;
constexpr size_t kHeaderBytes = kMagicBytes + sizeof(uint32_t);
constexpr int64_t kMaxRecordBytes = 64 * 1024;
constexpr char kSuffix[] = ".rec";

std::string Encode(const ClipRecord& record) {
  const std::string body = record.SerializeAsString();
  const uint32_t crc = Crc32c(body);
  std::string bytes(kMagic, kMagicBytes);
  bytes.append(reinterpret_cast<const char*>(&crc), sizeof(crc));
  return bytes + body;
}

bool Decode(absl::string_view bytes, ClipRecord* record) {
  if (bytes.size() < kHeaderBytes || bytes.substr(0, kMagicBytes) != kMagic) return false;
  uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + kMagicBytes, sizeof(crc));
  bytes.remove_prefix(kHeaderBytes);
  return Crc32c(bytes) == crc &&
         record->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

std::string ClipIdOf(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "clips/") || name.size() != 26) return "";
  for (const char c : name) {
    if (!((c >= 'a' && c <= 'z') || (c >= '2' && c <= '7'))) return "";
  }
  return std::string(name);
}

std::vector<ClipRecord> RecordFiles::LoadAll() const {
  std::vector<ClipRecord> records;
  for (const std::string& name : dir_.List()) {
    if (!absl::EndsWith(name, kSuffix)) continue;
    const absl::StatusOr<std::string> bytes = dir_.Read(name, kMaxRecordBytes);
    ClipRecord record;
    if (bytes.ok() && Decode(*bytes, &record) &&
        absl::StrCat(ClipIdOf(record.clip().name()), kSuffix) == name) {
      records.push_back(std::move(record));
    } else {
      Log(LogLevel::kError, "clip record unreadable, removed", {{"file", name}});
      dir_.Remove(name);
    }
  }
  return records;
}

absl::Status RecordFiles::Save(const ClipRecord& record, int64_t version) {
  const std::string id = ClipIdOf(record.clip().name());
  absl::MutexLock lock(&mutex_);
  int64_t& stored = versions_[id];
  if (version <= stored) return absl::OkStatus();
  VNSA_RETURN_IF_ERROR(dir_.WriteAtomic(id + kSuffix, Encode(record)));
  stored = version;
  return absl::OkStatus();
}

absl::Status RecordFiles::Remove(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  versions_[id] = kRemoved;
  dir_.Remove(id + kSuffix);
  return dir_.Sync();
}

}  // namespace videonsa
