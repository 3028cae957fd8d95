#include "client/openai/inline_upload.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "client/uploader.h"

namespace videonsa::openai {
namespace {

// Bytes as a file that exists in memory only, for the uploader.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& bytes) : fd_(memfd_create("inline-media", MFD_CLOEXEC)) {
    size_t done = 0;
    while (fd_ >= 0 && done < bytes.size()) {
      const ssize_t wrote = write(fd_, bytes.data() + done, bytes.size() - done);
      if (wrote <= 0) break;
      done += static_cast<size_t>(wrote);
    }
    complete_ = fd_ >= 0 && done == bytes.size();
  }
  ~MemoryFile() {
    if (fd_ >= 0) close(fd_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  bool complete() const { return complete_; }
  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  const int fd_;
  bool complete_ = false;
};

// Follows the clip until it is READY.
absl::Status AwaitReady(v1::ClipService::StubInterface& stub, const client::CallOptions& options,
                        v1::Clip clip) {
  if (clip.state() != v1::Clip::STATE_READY) {
    client::ScopedCall call(options);
    v1::WatchClipRequest request;
    request.set_name(clip.name());
    const auto reader = stub.WatchClip(call.context(), request);
    v1::WatchClipResponse response;
    while (reader->Read(&response)) clip = response.clip();
    const absl::Status status = client::FromGrpc(reader->Finish());
    if (!status.ok()) return status;
  }
  if (clip.state() == v1::Clip::STATE_READY) return absl::OkStatus();
  return client::LocalError(
      absl::StatusCode::kInvalidArgument,
      clip.error_reason().empty() ? "MEDIA_CORRUPT" : clip.error_reason(),
      clip.error_message().empty() ? "the media cannot be used" : clip.error_message());
}

absl::Status UploadBytes(v1::ClipService::StubInterface& stub, const InlineLimits& limits,
                         const client::CallOptions& options, const std::string& bytes,
                         std::string& name) {
  const MemoryFile file(bytes);
  if (!file.complete()) {
    return client::LocalError(absl::StatusCode::kUnavailable, "FRONT_FULL",
                              "no memory for the media of this request");
  }
  client::UploadOptions upload;
  upload.display_name = "inline";
  upload.ttl = limits.ttl;
  upload.max_attempts = 3;
  upload.call = options;
  const absl::StatusOr<client::UploadResult> result =
      client::Uploader(stub).Upload(file.path(), upload);
  if (!result.ok()) return result.status();
  name = result->clip.name();
  return AwaitReady(stub, options, result->clip);
}

// Takes the inline bytes out of a part; null if it holds none.
std::string* InlineOf(v1::Part& part) {
  if (part.clip().source_case() == v1::ClipInput::kInlineData) {
    return part.mutable_clip()->mutable_inline_data();
  }
  if (part.image().source_case() == v1::ImageInput::kInlineData) {
    return part.mutable_image()->mutable_inline_data();
  }
  return nullptr;
}

}  // namespace

absl::Status UploadLargeMedia(v1::ClipService::StubInterface& stub, const InlineLimits& limits,
                              const client::CallOptions& options, v1::Question& question) {
  std::vector<v1::Part*> parts;
  int64_t total = 0;
  for (v1::Turn& turn : *question.mutable_turns()) {
    for (v1::Part& part : *turn.mutable_parts()) {
      if (const std::string* bytes = InlineOf(part)) {
        parts.push_back(&part);
        total += static_cast<int64_t>(bytes->size());
      }
    }
  }
  const auto size_of = [](v1::Part* part) { return static_cast<int64_t>(InlineOf(*part)->size()); };
  std::sort(parts.begin(), parts.end(),
            [&](v1::Part* a, v1::Part* b) { return size_of(a) > size_of(b); });
  for (v1::Part* part : parts) {
    const int64_t size = size_of(part);
    if (size <= limits.max_inline_bytes && total <= limits.max_message_bytes) break;
    std::string name;
    const absl::Status status = UploadBytes(stub, limits, options, *InlineOf(*part), name);
    if (!status.ok()) return status;
    if (part->has_clip()) {
      part->mutable_clip()->set_clip(name);
    } else {
      part->mutable_image()->set_clip(name);
    }
    total -= size;
  }
  return absl::OkStatus();
}

}  // namespace videonsa::openai
