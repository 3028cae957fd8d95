// The clip store alone: quotas, expiry, crashes, leases. Time is a FakeClock.
#include "server/clip_store/clip_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

constexpr char kTenant[] = "default";

std::string ReasonOf(const absl::Status& status) {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  return info ? info->reason : "";
}

class ClipStoreTest : public ::testing::Test {
 protected:
  ClipStoreTest() {
    options_.dir = folder_.path() + "/clips";
    options_.free_space_floor = 0;
    Open();
  }
  // As after a crash: no destructor of ours writes anything.
  void Open() {
    store_.reset();
    auto store = ClipStore::Open(options_, clock_, metrics_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  absl::StatusOr<v1::StartUploadResponse> Start(int64_t size, const std::string& sha256 = "",
                                                const std::string& request_id = "",
                                                const std::string& tenant = kTenant) {
    v1::StartUploadRequest request;
    request.set_size_bytes(size);
    request.set_sha256(sha256);
    request.set_request_id(request_id);
    return store_->StartUpload(tenant, request);
  }
  static v1::UploadChunk Chunk(int64_t offset, const std::string& data, bool finish) {
    v1::UploadChunk chunk;
    chunk.set_offset(offset);
    chunk.set_data(data);
    chunk.set_crc32c(Crc32c(data));
    chunk.set_finish(finish);
    return chunk;
  }
  // A READY clip of `bytes`; returns its name.
  std::string Ready(const std::string& bytes, const std::string& tenant = kTenant) {
    const auto start = Start(static_cast<int64_t>(bytes.size()), "", "", tenant);
    EXPECT_TRUE(start.ok()) << start.status();
    const auto writer = store_->BeginWrite(tenant, start->upload_id(), 0);
    EXPECT_TRUE(writer.ok()) << writer.status();
    const auto state = store_->Append(*writer, Chunk(0, bytes, true));
    EXPECT_TRUE(state.ok()) << state.status();
    v1::MediaInfo media;
    media.set_codec("h264");
    store_->SetProbed(ClipIdOf(state->clip.name()), media);
    return state->clip.name();
  }
  v1::Clip::State StateOf(const std::string& name) {
    const auto clip = store_->Get(kTenant, name);
    return clip.ok() ? clip->state() : v1::Clip::STATE_UNSPECIFIED;
  }
  std::vector<std::string> Files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(options_.dir)) {
      if (entry.path().filename() != "LOCK") names.push_back(entry.path().filename());
    }
    return names;
  }
  static std::string Sha(const std::string& bytes) {
    const Sha256Digest digest = Sha256Of(bytes);
    return std::string(digest.begin(), digest.end());
  }

  TemporaryFolder folder_;
  ClipStoreOptions options_;
  FakeClock clock_{absl::FromUnixSeconds(1700000000)};
  MetricsRegistry metrics_;
  std::unique_ptr<ClipStore> store_;
};

TEST_F(ClipStoreTest, UploadBecomesAClip) {
  const auto start = Start(10, Sha("0123456789"));
  ASSERT_TRUE(start.ok()) << start.status();
  EXPECT_EQ(start->clip().state(), v1::Clip::STATE_UPLOADING);
  EXPECT_EQ(start->max_chunk_bytes(), 1 << 20);
  std::string probed;
  store_->SetProber([&](const std::string& id) { probed = id; });
  const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 0);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(store_->Append(*writer, Chunk(0, "01234", false))->committed_bytes, 5);
  const auto state = store_->Append(*writer, Chunk(5, "56789", true));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_TRUE(state->complete);
  EXPECT_EQ(state->clip.state(), v1::Clip::STATE_PROBING);
  EXPECT_EQ(state->clip.sha256(), Sha("0123456789"));
  EXPECT_EQ(absl::StrCat("clips/", probed), state->clip.name());
  EXPECT_EQ(ReasonOf(store_->Acquire(kTenant, state->clip.name()).status()), "CLIP_NOT_READY");
  store_->SetProbed(probed, v1::MediaInfo());
  EXPECT_EQ(StateOf(state->clip.name()), v1::Clip::STATE_READY);
  const auto lease = store_->Acquire(kTenant, state->clip.name());
  ASSERT_TRUE(lease.ok());
  std::ifstream file(lease->source.path);
  std::string content;
  file >> content;
  EXPECT_EQ(content, "0123456789");
  EXPECT_EQ(HexOf(lease->source.sha256), HexOf(Sha256Of("0123456789")));
}

TEST_F(ClipStoreTest, FilesArePrivate) {
  Ready("video");
  struct stat facts {};
  ASSERT_EQ(stat(options_.dir.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700u);
  for (const std::string& name : Files()) {
    ASSERT_EQ(stat((options_.dir + "/" + name).c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600u) << name;
  }
}

TEST_F(ClipStoreTest, WrongOffsetsSayTheRightOne) {
  const auto start = Start(10);
  auto writer = store_->BeginWrite(kTenant, start->upload_id(), 3);
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(writer.status()), "OFFSET_MISMATCH");
  writer = store_->BeginWrite(kTenant, start->upload_id(), 0);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(store_->Append(*writer, Chunk(0, "0123", false)).ok());
  const absl::Status replay = store_->Append(*writer, Chunk(0, "0123", false)).status();
  EXPECT_EQ(ReasonOf(replay), "OFFSET_MISMATCH");
  EXPECT_EQ(GetErrorInfo(replay)->metadata[0].second, "4");
  EXPECT_EQ(store_->Query(kTenant, start->upload_id())->committed_bytes, 4);
}

TEST_F(ClipStoreTest, BadChunksAreNotStored) {
  const auto start = Start(10);
  const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 0);
  v1::UploadChunk chunk = Chunk(0, "01234", false);
  chunk.set_data("0123X");
  const absl::Status status = store_->Append(*writer, chunk).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), "CHECKSUM_MISMATCH");
  for (const v1::UploadChunk& bad :
       {Chunk(0, std::string(11, 'x'), false), Chunk(0, "01234", true), Chunk(-1, "x", false),
        Chunk(0, std::string((1 << 20) + 1, 'x'), false)}) {
    EXPECT_EQ(store_->Append(*writer, bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(store_->Query(kTenant, start->upload_id())->committed_bytes, 0);
  EXPECT_TRUE(store_->Append(*writer, Chunk(0, "0123456789", true)).ok());
}

TEST_F(ClipStoreTest, WrongDigestFailsTheClipAndFreesItsBytes) {
  const auto start = Start(5, Sha("other"));
  const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 0);
  const absl::Status status = store_->Append(*writer, Chunk(0, "01234", true)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  const auto clip = store_->Get(kTenant, start->clip().name());
  EXPECT_EQ(clip->state(), v1::Clip::STATE_FAILED);
  EXPECT_EQ(clip->error_reason(), "CHECKSUM_MISMATCH");
  EXPECT_EQ(Files().size(), 1u) << "only the record is left";
  EXPECT_EQ(ReasonOf(store_->BeginWrite(kTenant, start->upload_id(), 0).status()), "CLIP_FAILED");
}

TEST_F(ClipStoreTest, NewStreamTakesOver) {
  const auto start = Start(10);
  const auto first = store_->BeginWrite(kTenant, start->upload_id(), 0);
  ASSERT_TRUE(store_->Append(*first, Chunk(0, "0123", false)).ok());
  const auto second = store_->BeginWrite(kTenant, start->upload_id(), 4);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(ReasonOf(store_->Append(*first, Chunk(4, "4", false)).status()), "UPLOAD_SUPERSEDED");
  EXPECT_TRUE(store_->Append(*second, Chunk(4, "456789", true))->complete);
}

TEST_F(ClipStoreTest, RestartFindsBytesAndDigest) {
  const std::string bytes = std::string(3000, 'a') + std::string(3000, 'b');
  const auto start = Start(6000, Sha(bytes), "req-1");
  {
    const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 0);
    ASSERT_TRUE(store_->Append(*writer, Chunk(0, bytes.substr(0, 4000), false)).ok());
  }
  Open();
  EXPECT_EQ(store_->Query(kTenant, start->upload_id())->committed_bytes, 4000);
  const auto again = Start(6000, Sha(bytes), "req-1");
  EXPECT_EQ(again->upload_id(), start->upload_id());
  EXPECT_EQ(again->committed_size(), 4000);
  const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 4000);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const auto state = store_->Append(*writer, Chunk(4000, bytes.substr(4000), true));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->clip.sha256(), Sha(bytes));
  // A repeat of the last message after the answer was lost.
  const auto repeat = store_->BeginWrite(kTenant, start->upload_id(), 6000);
  ASSERT_TRUE(repeat.ok());
  EXPECT_TRUE(store_->Append(*repeat, Chunk(6000, "", true))->complete);
  Open();
  std::string probed;
  store_->SetProber([&](const std::string& id) { probed = id; });
  EXPECT_EQ(absl::StrCat("clips/", probed), start->clip().name()) << "probing goes on";
}

TEST_F(ClipStoreTest, CrashBetweenRenameAndRecordLosesNothing) {
  const auto start = Start(5);
  const std::string id = ClipIdOf(start->clip().name());
  {
    const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 0);
    ASSERT_TRUE(store_->Append(*writer, Chunk(0, "01234", false)).ok());
  }
  store_.reset();
  const std::string stem = options_.dir + "/" + id;
  ASSERT_EQ(rename((stem + ".part").c_str(), (stem + ".bin").c_str()), 0);
  Open();
  EXPECT_EQ(store_->Query(kTenant, start->upload_id())->committed_bytes, 5);
  const auto writer = store_->BeginWrite(kTenant, start->upload_id(), 5);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE(store_->Append(*writer, Chunk(5, "", true))->complete);
}

TEST_F(ClipStoreTest, DebrisIsSweptAtStart) {
  const std::string name = Ready("video");
  store_.reset();
  for (const char* debris : {"x.part", "y.bin", "z.rec", "a.rec.new"}) {
    std::ofstream(options_.dir + "/" + debris) << "debris";
  }
  // A record whose bytes were damaged, and one whose bytes are gone.
  Open();
  EXPECT_EQ(Files().size(), 2u);
  EXPECT_EQ(StateOf(name), v1::Clip::STATE_READY);
  store_.reset();
  unlink((options_.dir + "/" + ClipIdOf(name) + ".bin").c_str());
  Open();
  EXPECT_TRUE(Files().empty());
  EXPECT_EQ(StateOf(name), v1::Clip::STATE_UNSPECIFIED);
}

TEST_F(ClipStoreTest, DirectoryOfAnotherProcessOrBehindALinkIsRefused) {
  EXPECT_EQ(ClipStore::Open(options_, clock_, metrics_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ClipStoreOptions linked = options_;
  linked.dir = folder_.path() + "/link";
  ASSERT_EQ(symlink("/tmp", linked.dir.c_str()), 0);
  EXPECT_EQ(ClipStore::Open(linked, clock_, metrics_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ClipStoreTest, TenantsDoNotSeeEachOther) {
  const std::string name = Ready("video", "a");
  EXPECT_EQ(store_->Get("b", name).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Acquire("b", name).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Delete("b", name).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->List("b", v1::ListClipsRequest())->clips_size(), 0);
  const auto start = Start(5, "", "", "a");
  EXPECT_EQ(store_->Query("b", start->upload_id()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->BeginWrite("b", start->upload_id(), 0).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->Abort("b", start->upload_id()).ok()) << "as for an unknown one";
  EXPECT_TRUE(store_->Query("a", start->upload_id()).ok());
  EXPECT_FALSE(Start(5, Sha("video"), "", "b")->already_stored());
  EXPECT_TRUE(Start(5, Sha("video"), "", "a")->already_stored());
}

TEST_F(ClipStoreTest, QuotasHoldUnder32Uploaders) {
  options_.tenant_uploads = 1000;
  options_.tenant_bytes = 10 * 100;
  Open();
  std::atomic<int> admitted{0}, refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&] {
      const auto start = Start(100);
      (start.ok() ? admitted : refused)++;
      if (!start.ok()) {
        EXPECT_EQ(ReasonOf(start.status()), "QUOTA_EXCEEDED");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admitted, 10);
  EXPECT_EQ(refused, 22);
}

TEST_F(ClipStoreTest, EveryQuotaHasItsName) {
  options_.tenant_uploads = 1;
  Open();
  ASSERT_TRUE(Start(1).ok());
  absl::Status status = Start(1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(GetErrorInfo(status)->retry_after.has_value());
  EXPECT_TRUE(absl::StrContains(std::string(status.message()), "open_uploads"));
  EXPECT_TRUE(Start(1, "", "", "another").ok());
  options_.total_bytes = 5;
  Open();
  EXPECT_EQ(ReasonOf(Start(6, "", "", "third").status()), "STORAGE_FULL");
  options_.free_space_floor = 0.9999;
  options_.total_bytes = int64_t{1} << 40;
  Open();
  EXPECT_EQ(ReasonOf(Start(6, "", "", "third").status()), "STORAGE_FULL");
  options_.max_clip_bytes = 10;
  Open();
  EXPECT_EQ(ReasonOf(Start(11).status()), "MEDIA_TOO_LARGE");
}

TEST_F(ClipStoreTest, AbortGivesQuotaBack) {
  options_.tenant_uploads = 1;
  Open();
  const auto start = Start(100);
  ASSERT_TRUE(store_->BeginWrite(kTenant, start->upload_id(), 0).ok());
  EXPECT_FALSE(Start(100).ok());
  EXPECT_TRUE(store_->Abort(kTenant, start->upload_id()).ok());
  EXPECT_TRUE(store_->Abort(kTenant, start->upload_id()).ok());
  EXPECT_TRUE(Files().empty());
  EXPECT_TRUE(Start(100).ok());
}

TEST_F(ClipStoreTest, UnusedClipsExpireUsedOnesLive) {
  const std::string unused = Ready("one");
  const std::string used = Ready("two");
  clock_.Advance(options_.default_ttl - absl::Seconds(1));
  store_->Sweep();
  ASSERT_TRUE(store_->Acquire(kTenant, used).ok());
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(store_->Sweep(), 1);
  EXPECT_EQ(StateOf(unused), v1::Clip::STATE_UNSPECIFIED);
  EXPECT_EQ(StateOf(used), v1::Clip::STATE_READY);
  Open();
  EXPECT_EQ(StateOf(used), v1::Clip::STATE_READY) << "the use was written down";
  const auto upload = Start(5);
  clock_.Advance(options_.upload_ttl + absl::Seconds(1));
  store_->Sweep();
  EXPECT_EQ(ReasonOf(store_->Query(kTenant, upload->upload_id()).status()), "UPLOAD_NOT_FOUND");
}

TEST_F(ClipStoreTest, DeletedClipStaysReadableWhileInUse) {
  const std::string name = Ready("video");
  auto lease = store_->Acquire(kTenant, name);
  ASSERT_TRUE(lease.ok());
  ASSERT_TRUE(store_->Delete(kTenant, name).ok());
  EXPECT_EQ(store_->Delete(kTenant, name).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(std::ifstream(lease->source.path).good());
  lease->hold.reset();
  EXPECT_FALSE(std::ifstream(lease->source.path).good());
  EXPECT_TRUE(Files().empty());
}

TEST_F(ClipStoreTest, ListsPagesNewestFirst) {
  std::vector<std::string> names;
  for (int i = 0; i < 5; ++i) {
    names.push_back(Ready(absl::StrCat("clip ", i)));
    clock_.Advance(absl::Seconds(1));
  }
  v1::ListClipsRequest request;
  request.set_page_size(2);
  std::vector<std::string> listed;
  do {
    const auto page = store_->List(kTenant, request);
    ASSERT_TRUE(page.ok());
    for (const v1::Clip& clip : page->clips()) listed.push_back(clip.name());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  std::reverse(names.begin(), names.end());
  EXPECT_EQ(listed, names);
  request.set_page_token("junk");
  EXPECT_FALSE(store_->List(kTenant, request).ok());
  request.set_page_token("");
  request.set_page_size(101);
  EXPECT_FALSE(store_->List(kTenant, request).ok());
}

TEST_F(ClipStoreTest, StartIsCheckedAndIdempotent) {
  EXPECT_FALSE(Start(0).ok());
  EXPECT_FALSE(Start(-1).ok());
  EXPECT_FALSE(Start(5, "short").ok());
  EXPECT_FALSE(Start(5, "", std::string(65, 'x')).ok());
  const auto first = Start(5, "", "req");
  EXPECT_EQ(Start(5, "", "req")->upload_id(), first->upload_id());
  EXPECT_EQ(ReasonOf(Start(6, "", "req").status()), "REQUEST_ID_REUSED");
  v1::StartUploadRequest request;
  request.set_size_bytes(5);
  request.mutable_ttl()->set_seconds(1);
  EXPECT_FALSE(store_->StartUpload(kTenant, request).ok());
  request.mutable_ttl()->set_seconds(120);
  request.set_display_name(std::string(257, 'x'));
  EXPECT_FALSE(store_->StartUpload(kTenant, request).ok());
}

}  // namespace
}  // namespace videonsa
