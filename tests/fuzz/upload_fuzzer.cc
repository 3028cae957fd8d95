// Any bytes as a script of upload calls on a clip store: every refusal is typed, a committed size
// never goes down, an upload is complete only with every byte there, and what is READY holds
// exactly the bytes that were acknowledged.
#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "google/protobuf/stubs/logging.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"
#include "server/clip_store/clip_store.h"
#include "tests/fuzz/fuzz_file.h"

namespace {

using namespace videonsa;

constexpr int64_t kMaxClip = 4096;

absl::Status Typed(const absl::Status& status) {
  VNSA_CHECK(status.ok() || GetErrorInfo(status).has_value()) << status;
  return status;
}

// One upload as the caller knows it.
struct Upload {
  std::string id, clip;
  int64_t size = 0;
  int64_t committed = 0;
  UploadWriter writer;
  bool writing = false;
};

class Caller {
 public:
  explicit Caller(ClipStore& store) : store_(store) {}

  void Run(fuzz::Script& script) {
    for (int step = 0; step < 64 && !script.empty(); ++step) Step(script);
  }

 private:
  void Step(fuzz::Script& script) {
    switch (script.Byte() % 9) {
      case 0:
        return Start(script);
      case 1:
        return Begin(script);
      case 2:
      case 3:
        return Append(script, /*plain=*/true);
      case 4:
        return Append(script, /*plain=*/false);
      case 5: {
        const auto state = store_.Query("tenant", Pick(script).id);
        if (Typed(state.status()).ok()) Grown(Pick(script, false), *state);
        return;
      }
      case 6:
        Typed(store_.Abort("tenant", Pick(script).id)).IgnoreError();
        return;
      case 7:
        Typed(store_.Delete(script.Byte() % 4 == 0 ? "other" : "tenant", Pick(script).clip))
            .IgnoreError();
        return;
      default:
        Upload& upload = Pick(script);
        if (upload.writing) Typed(store_.Commit(upload.writer).status()).IgnoreError();
    }
  }

  void Start(fuzz::Script& script) {
    v1::StartUploadRequest request;
    request.set_size_bytes(static_cast<int32_t>(script.Word()) % (kMaxClip + 2));
    if (script.Byte() % 4 == 0) request.set_sha256(script.Bytes(script.Byte() % 40));
    if (script.Byte() % 4 == 0) request.set_request_id(script.Bytes(script.Byte() % 48));
    if (script.Byte() % 4 == 0) request.set_display_name(script.Bytes(script.Byte()));
    if (script.Byte() % 4 == 0) {
      request.mutable_ttl()->set_seconds(static_cast<int32_t>(script.Word()));
    }
    // The wire lets no text through that is not UTF-8.
    v1::StartUploadRequest arrived;
    if (!arrived.ParseFromString(request.SerializePartialAsString())) return;
    const auto response = store_.StartUpload("tenant", arrived);
    if (!Typed(response.status()).ok() || response->upload_id().empty()) return;
    Upload upload;
    upload.id = response->upload_id();
    upload.clip = response->clip().name();
    upload.size = request.size_bytes();
    upload.committed = response->committed_size();
    uploads_[count_++ % 4] = upload;
  }

  void Begin(fuzz::Script& script) {
    Upload& upload = Pick(script);
    const int64_t offset = script.Byte() % 4 ? upload.committed : script.Byte();
    auto writer = store_.BeginWrite("tenant", upload.id, offset);
    if (!Typed(writer.status()).ok()) return;
    VNSA_CHECK_EQ(writer->committed_bytes, offset);
    upload.writer = *std::move(writer);
    upload.writing = true;
  }

  void Append(fuzz::Script& script, bool plain) {
    Upload& upload = Pick(script);
    if (!upload.writing || upload.writer.file == nullptr) return;
    v1::UploadChunk chunk;
    chunk.set_offset(plain ? upload.committed : static_cast<int32_t>(script.Word()));
    chunk.set_data(std::string(script.Byte() * 16, 'x'));
    chunk.set_finish(script.Byte() % 4 == 0);
    if (!plain) chunk.set_crc32c(script.Word());
    const auto state = store_.Append(upload.writer, chunk);
    if (Typed(state.status()).ok()) Grown(upload, *state);
  }

  static void Grown(Upload& upload, const UploadState& state) {
    VNSA_CHECK(state.committed_bytes >= upload.committed)
        << state.committed_bytes << " after " << upload.committed;
    VNSA_CHECK(state.committed_bytes <= upload.size) << state.committed_bytes;
    VNSA_CHECK(!state.complete || state.committed_bytes == upload.size) << state.committed_bytes;
    upload.committed = state.committed_bytes;
  }

  Upload& Pick(fuzz::Script& script, bool fresh = true) {
    if (fresh) last_ = script.Byte() % 4;
    return uploads_[last_];
  }

  ClipStore& store_;
  std::map<int, Upload> uploads_;
  int count_ = 0;
  int last_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string* const root = [] {
    auto* const made = new std::string("/dev/shm/upload_fuzzer_XXXXXX");
    VNSA_CHECK(mkdtemp(made->data()) != nullptr);
    atexit([] { std::filesystem::remove_all(*root); });
    return made;
  }();
  SetLogLevel(LogLevel::kError);
  google::protobuf::SetLogHandler(nullptr);  // it tells of each text that is not UTF-8
  ClipStoreOptions options;
  options.dir = *root + "/clips";
  options.max_clip_bytes = kMaxClip;
  options.tenant_bytes = 4 * kMaxClip;
  options.free_space_floor = 0;
  MetricsRegistry metrics;
  auto store = ClipStore::Open(options, Clock::Real(), metrics);
  VNSA_CHECK(store.ok()) << store.status();
  fuzz::Script script(data, size);
  Caller(**store).Run(script);
  // A second life reads what the first one left.
  store->reset();
  const auto again = ClipStore::Open(options, Clock::Real(), metrics);
  VNSA_CHECK(again.ok()) << again.status();
  std::error_code gone;
  std::filesystem::remove_all(options.dir, gone);
  return 0;
}
