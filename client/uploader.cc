#include "client/uploader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/digest.h"
#include "client/error.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int fd() const { return fd_; }

  // Reads up to `size` bytes at `offset`; fewer only at the end of the file.
  std::string ReadAt(int64_t offset, size_t size) const {
    std::string data(size, '\0');
    size_t got = 0;
    while (got < size) {
      const ssize_t n =
          pread(fd_, data.data() + got, size - got, offset + static_cast<int64_t>(got));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      got += static_cast<size_t>(n);
    }
    data.resize(got);
    return data;
  }

 private:
  int fd_;
};

absl::Status FileChanged(const std::string& path) {
  return LocalError(absl::StatusCode::kAborted, "FILE_CHANGED",
                    absl::StrCat(path, " changed while it was being sent"));
}

}  // namespace

struct Uploader::Job {
  const std::string& path;
  const UploadOptions& options;
  const std::function<void(const UploadProgress&)>& on_progress;
  const File& file;
  int64_t size = 0;
  std::string upload_id;
  int64_t committed = 0;
  int64_t chunk_bytes = 0;
  bool complete = false;
  bool restarted = false;
  int failures = 0;  // in a row without progress
  UploadResult result;

  void Report(UploadProgress::Phase phase, int64_t done) const {
    if (on_progress) on_progress({.phase = phase, .done_bytes = done, .total_bytes = size});
  }
  bool cancelled() const {
    return options.call.cancellation != nullptr && options.call.cancellation->cancelled();
  }
};

Uploader::Uploader(proto::ClipService::StubInterface& stub)
    : stub_(stub), random_(std::random_device{}()) {}

absl::StatusOr<UploadResult> Uploader::Upload(
    const std::string& path, const UploadOptions& options,
    const std::function<void(const UploadProgress&)>& on_progress) {
  const File file(path);
  struct stat facts {};
  if (file.fd() < 0 || fstat(file.fd(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
    const char* why = file.fd() < 0 ? std::strerror(errno) : "not a regular file";
    return LocalError(absl::StatusCode::kNotFound, "FILE_UNREADABLE",
                      absl::StrCat("cannot read ", path, ": ", why));
  }
  if (facts.st_size == 0) {
    return LocalError(absl::StatusCode::kInvalidArgument, "FILE_EMPTY",
                      absl::StrCat(path, " is empty"));
  }
  Job job{.path = path, .options = options, .on_progress = on_progress, .file = file};
  job.size = facts.st_size;
  Sha256 sha;
  constexpr size_t kReadBytes = 4 << 20;
  for (int64_t at = 0; at < job.size;) {
    const std::string piece = file.ReadAt(at, kReadBytes);
    if (piece.empty()) return FileChanged(path);
    sha.Update(piece);
    at += static_cast<int64_t>(piece.size());
    job.Report(UploadProgress::Phase::kHashing, std::min(at, job.size));
    if (job.cancelled()) return absl::CancelledError("cancelled by the caller");
  }
  job.result.sha256 = sha.Finish();

  absl::Status status = Start(job, options.resume ? UuidOfDigest(job.result.sha256) : RandomUuid());
  job.result.resumed_at = job.committed;
  while (status.ok() && !job.complete) {
    const int64_t before = job.committed;
    const absl::Status failure = SendOnce(job);
    if (failure.ok()) break;
    ++job.result.cuts;
    status = Recover(job, failure);
    if (job.committed > before) job.failures = 0;
  }
  if (!status.ok()) return status;
  return std::move(job.result);
}

// Opens the upload; waits and repeats while the server cannot be reached.
absl::Status Uploader::Start(Job& job, const std::string& request_id) {
  proto::StartUploadRequest request;
  request.set_request_id(request_id);
  request.set_size_bytes(job.size);
  request.set_sha256(job.result.sha256);
  const std::string& label = job.options.display_name;
  request.set_display_name(label.empty() ? job.path.substr(job.path.rfind('/') + 1) : label);
  if (job.options.ttl > absl::ZeroDuration()) *request.mutable_ttl() = ToProto(job.options.ttl);
  while (true) {
    ScopedCall call(job.options.call);
    proto::StartUploadResponse response;
    const absl::Status status = FromGrpc(stub_.StartUpload(call.context(), request, &response));
    if (!status.ok()) {
      if (!IsTransient(status)) return status;
      if (absl::Status gave_up = Wait(job, status); !gave_up.ok()) return gave_up;
      continue;
    }
    const bool dead = response.clip().state() == proto::Clip::STATE_FAILED ||
                      (response.upload_id().empty() && !response.already_stored());
    if (dead && job.options.resume && !job.restarted) {
      // The id belongs to an earlier upload that came to nothing; take a fresh one.
      job.restarted = true;
      request.set_request_id(RandomUuid());
      continue;
    }
    job.upload_id = response.upload_id();
    job.committed = response.committed_size();
    job.result.clip = response.clip();
    job.result.already_stored = response.already_stored();
    job.complete = response.already_stored();
    job.chunk_bytes = job.options.chunk_bytes;
    if (response.max_chunk_bytes() > 0) {
      job.chunk_bytes = std::min<int64_t>(job.chunk_bytes, response.max_chunk_bytes());
    }
    return absl::OkStatus();
  }
}

// One stream from the committed size to the end, or to the first failure.
absl::Status Uploader::SendOnce(Job& job) {
  ScopedCall call(job.options.call);
  proto::UploadClipResponse response;
  std::unique_ptr<grpc::ClientWriterInterface<proto::UploadClipRequest>> writer(
      stub_.UploadClip(call.context(), &response));
  proto::UploadClipRequest message;
  message.mutable_header()->set_upload_id(job.upload_id);
  message.mutable_header()->set_write_offset(job.committed);
  bool open = writer->Write(message);
  int64_t at = job.committed;
  job.Report(UploadProgress::Phase::kSending, at);
  while (open && at < job.size) {
    const size_t want = static_cast<size_t>(std::min(job.chunk_bytes, job.size - at));
    proto::UploadChunk& chunk = *message.mutable_chunk();
    chunk.set_offset(at);
    chunk.set_data(job.file.ReadAt(at, want));
    if (chunk.data().size() != want) {
      call.context()->TryCancel();
      writer->Finish().ok();
      return FileChanged(job.path);
    }
    chunk.set_crc32c(Crc32c(chunk.data()));
    at += static_cast<int64_t>(want);
    chunk.set_finish(at == job.size);
    open = writer->Write(message);
    if (!open) break;
    job.result.sent_bytes += static_cast<int64_t>(want);
    job.Report(UploadProgress::Phase::kSending, at);
  }
  if (open && job.committed == job.size) {
    // Every byte is there but the end was never confirmed: an empty last chunk asks for it.
    message.mutable_chunk()->set_offset(at);
    message.mutable_chunk()->set_crc32c(Crc32c(""));
    message.mutable_chunk()->set_finish(true);
    open = writer->Write(message);
  }
  if (open) writer->WritesDone();
  const absl::Status status = FromGrpc(writer->Finish());
  if (!status.ok()) return status;
  job.committed = response.committed_size();
  if (!response.complete()) {
    return LocalError(
        absl::StatusCode::kUnavailable, "UPLOAD_INCOMPLETE",
        absl::StrCat("the server ended the stream at ", job.committed, " of ", job.size, " bytes"));
  }
  job.complete = true;
  job.result.clip = response.clip();
  return absl::OkStatus();
}

// Finds out from where to go on. OK: try again; otherwise the upload has failed for good.
absl::Status Uploader::Recover(Job& job, const absl::Status& failure) {
  if (job.cancelled()) return failure;
  const ErrorDetails details = DetailsOf(failure);
  const bool lost_upload = failure.code() == absl::StatusCode::kNotFound;
  const bool bad_digest =
      failure.code() == absl::StatusCode::kDataLoss && job.committed >= job.size;
  if ((lost_upload || bad_digest) && !job.restarted) {
    job.restarted = true;  // expired, or stored bytes are damaged: once more from the beginning
    return Start(job, RandomUuid());
  }
  const bool resumable =
      IsTransient(failure) || details.reason == "OFFSET_MISMATCH" ||
      (failure.code() == absl::StatusCode::kDataLoss && details.reason == "CHECKSUM_MISMATCH");
  if (!resumable || details.reason == "FILE_CHANGED") return failure;
  if (absl::Status gave_up = Wait(job, failure); !gave_up.ok()) return gave_up;
  return Query(job);
}

absl::Status Uploader::Query(Job& job) {
  proto::QueryUploadRequest request;
  request.set_upload_id(job.upload_id);
  while (true) {
    ScopedCall call(job.options.call);
    proto::QueryUploadResponse response;
    const absl::Status status = FromGrpc(stub_.QueryUpload(call.context(), request, &response));
    if (status.ok()) {
      if (response.committed_size() < 0 || response.committed_size() > job.size) {
        return LocalError(absl::StatusCode::kDataLoss, "UPLOAD_INVALID",
                          absl::StrCat("the server claims ", response.committed_size(), " of ",
                                       job.size, " bytes"));
      }
      job.committed = response.committed_size();
      return absl::OkStatus();
    }
    if (status.code() == absl::StatusCode::kNotFound && !job.restarted) {
      job.restarted = true;
      return Start(job, RandomUuid());
    }
    if (!IsTransient(status)) return status;
    if (absl::Status gave_up = Wait(job, status); !gave_up.ok()) return gave_up;
  }
}

// Sleeps before the next attempt; returns `failure` when patience or the caller has ended.
absl::Status Uploader::Wait(Job& job, const absl::Status& failure) {
  if (++job.failures >= job.options.max_attempts || job.cancelled()) return failure;
  absl::Duration wait = job.options.initial_backoff;
  for (int i = 1; i < job.failures && wait < job.options.max_backoff; ++i) wait *= 2;
  wait = std::min(wait, job.options.max_backoff);
  wait *= std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  const ErrorDetails details = DetailsOf(failure);
  if (details.retry_after) {
    wait = std::max(wait, std::min(*details.retry_after, absl::Seconds(60)));
  }
  if (job.on_progress) {
    job.on_progress({.phase = UploadProgress::Phase::kWaiting,
                     .done_bytes = job.committed,
                     .total_bytes = job.size,
                     .failure = failure,
                     .wait = wait});
  }
  for (const absl::Time end = absl::Now() + wait; absl::Now() < end && !job.cancelled();) {
    absl::SleepFor(std::min(absl::Milliseconds(50), end - absl::Now()));
  }
  return job.cancelled() ? failure : absl::OkStatus();
}

}  // namespace videonsa::client
