#include "client/uploader.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "client/channel.h"
#include "client/digest.h"
#include "client/error.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

std::string RandomBytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class UploaderTest : public testing::Test {
 protected:
  UploaderTest() { StartServer(0); }

  void StartServer(int port) { server_ = std::make_unique<FakeServer>(state_, port); }

  std::string FileWith(const std::string& bytes) {
    const std::string path = testing::TempDir() + "/" +
                             testing::UnitTest::GetInstance()->current_test_info()->name() + ".bin";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  absl::StatusOr<UploadResult> Upload(
      const std::string& path, UploadOptions options = {},
      const std::function<void(const UploadProgress&)>& on_progress = nullptr) {
    options.initial_backoff = absl::Milliseconds(1);
    options.max_backoff = absl::Milliseconds(50);
    auto channel = OpenChannel({.address = server_->address()});
    auto stub = proto::ClipService::NewStub(*channel);
    return Uploader(*stub).Upload(path, options, on_progress);
  }

  std::string Stored() {
    absl::MutexLock lock(&state_.mutex);
    for (const auto& [id, upload] : state_.uploads) {
      if (upload.complete) return upload.bytes;
    }
    return "";
  }

  static std::function<bool(int, int64_t, grpc::Status*)> CutAt(std::vector<int64_t> points) {
    return [points](int stream, int64_t here, grpc::Status* status) {
      if (stream >= static_cast<int>(points.size()) || here < points[stream]) return false;
      *status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut");
      return true;
    };
  }

  FakeState state_;
  std::unique_ptr<FakeServer> server_;
};

TEST_F(UploaderTest, WholeFileArrives) {
  const std::string bytes = RandomBytes(1'000'003, 1);
  int64_t last = -1;
  bool hashed = false;
  const auto result =
      Upload(FileWith(bytes), {.display_name = "mine"}, [&](const UploadProgress& p) {
        hashed |= p.phase == UploadProgress::Phase::kHashing;
        if (p.phase == UploadProgress::Phase::kSending) last = p.done_bytes;
      });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Stored(), bytes);
  EXPECT_EQ(last, 1'000'003);
  EXPECT_TRUE(hashed);
  EXPECT_EQ(result->cuts, 0);
  EXPECT_EQ(result->sent_bytes, 1'000'003);
  EXPECT_EQ(result->clip.display_name(), "mine");
  EXPECT_EQ(result->clip.state(), proto::Clip::STATE_PROBING);
}

TEST_F(UploaderTest, OneByteAndChunkBorders) {
  for (const size_t size : {1u, 65535u, 65536u, 65537u, 131072u}) {
    const auto result = Upload(FileWith(RandomBytes(size, static_cast<uint32_t>(size))));
    ASSERT_TRUE(result.ok()) << size << result.status();
    EXPECT_EQ(result->sent_bytes, static_cast<int64_t>(size));
  }
}

TEST_F(UploaderTest, CutsAtRandomPointsLoseNothing) {
  std::mt19937 random(11);
  for (int round = 0; round < 20; ++round) {
    const std::string bytes = RandomBytes(800'000 + round, 100 + round);
    std::vector<int64_t> points;
    for (int i = 0; i < 4; ++i) {
      points.push_back(std::uniform_int_distribution<int64_t>(0, 400'000)(random));
    }
    {
      absl::MutexLock lock(&state_.mutex);
      state_.upload_streams = 0;
      state_.uploads.clear();
    }
    state_.cut = CutAt(points);
    const auto result = Upload(FileWith(bytes));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(Stored(), bytes) << round;
    EXPECT_GE(result->cuts, 1);
  }
}

TEST_F(UploaderTest, ASecondProcessGoesOnWhereTheFirstOneDied) {
  const std::string bytes = RandomBytes(600'000, 5);
  const std::string path = FileWith(bytes);
  state_.cut = CutAt({300'000});
  UploadOptions give_up;
  give_up.max_attempts = 1;
  EXPECT_EQ(Upload(path, give_up).status().code(), absl::StatusCode::kUnavailable);
  const auto result = Upload(path);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(result->resumed_at, 300'000);
  EXPECT_LE(result->sent_bytes, 300'000);
  EXPECT_EQ(Stored(), bytes);
}

TEST_F(UploaderTest, ServerRestartInBetween) {
  const std::string bytes = RandomBytes(2'000'000, 6);
  bool restarted = false;
  state_.cut = CutAt({700'000});
  const auto result = Upload(FileWith(bytes), {}, [&](const UploadProgress& progress) {
    if (progress.phase != UploadProgress::Phase::kWaiting || restarted) return;
    restarted = true;
    const int port = server_->port();
    server_.reset();
    StartServer(port);
  });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(restarted);
  EXPECT_EQ(Stored(), bytes);
}

TEST_F(UploaderTest, DamagedChunkIsSentAgain) {
  const std::string bytes = RandomBytes(400'000, 7);
  state_.corrupt_chunk = 3;
  const auto result = Upload(FileWith(bytes));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->cuts, 1);
  EXPECT_EQ(Stored(), bytes);
}

TEST_F(UploaderTest, WrongOffsetIsAskedForAgain) {
  const std::string bytes = RandomBytes(400'000, 8);
  state_.cut = [](int stream, int64_t here, grpc::Status* status) {
    if (stream != 0 || here < 100'000) return false;
    *status = TypedError(grpc::StatusCode::ABORTED, "OFFSET_MISMATCH", "wrong offset",
                         {{"committed_size", "1"}});
    return true;
  };
  const auto result = Upload(FileWith(bytes));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Stored(), bytes);
}

TEST_F(UploaderTest, LostUploadStartsOverOnce) {
  const std::string bytes = RandomBytes(400'000, 9);
  state_.cut = [&](int stream, int64_t here, grpc::Status* status) {
    state_.mutex.AssertHeld();
    if (stream != 0 || here < 100'000) return false;
    state_.uploads.clear();
    *status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut");
    return true;
  };
  const auto result = Upload(FileWith(bytes));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Stored(), bytes);
}

TEST_F(UploaderTest, StoredBytesAreNotSentAgain) {
  const std::string path = FileWith(RandomBytes(400'000, 10));
  ASSERT_TRUE(Upload(path).ok());
  const auto again = Upload(path);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->already_stored);
  EXPECT_EQ(again->sent_bytes, 0);
}

TEST_F(UploaderTest, RefusalsEndAtOnce) {
  state_.cut = [](int, int64_t, grpc::Status* status) {
    *status = TypedError(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "quota");
    return true;
  };
  const auto result = Upload(FileWith("x"));
  EXPECT_EQ(DetailsOf(result.status()).reason, "QUOTA_EXCEEDED");
  absl::MutexLock lock(&state_.mutex);
  EXPECT_EQ(state_.upload_streams, 1);
}

TEST_F(UploaderTest, PatienceEnds) {
  state_.cut = [](int, int64_t, grpc::Status* status) {
    *status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut");
    return true;
  };
  UploadOptions options;
  options.max_attempts = 4;
  const auto result = Upload(FileWith("x"), options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  absl::MutexLock lock(&state_.mutex);
  EXPECT_EQ(state_.upload_streams, 4);
}

TEST_F(UploaderTest, FilesThatCannotBeSent) {
  EXPECT_EQ(DetailsOf(Upload("/does/not/exist").status()).reason, "FILE_UNREADABLE");
  EXPECT_EQ(DetailsOf(Upload(testing::TempDir()).status()).reason, "FILE_UNREADABLE");
  EXPECT_EQ(DetailsOf(Upload(FileWith("")).status()).reason, "FILE_EMPTY");
}

TEST_F(UploaderTest, CancelStopsWaiting) {
  state_.cut = [](int, int64_t, grpc::Status* status) {
    *status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut");
    return true;
  };
  Cancellation cancellation;
  UploadOptions options;
  options.max_attempts = 1'000'000;
  options.call.cancellation = &cancellation;
  const auto result = Upload(FileWith("x"), options, [&](const UploadProgress& progress) {
    if (progress.phase == UploadProgress::Phase::kWaiting) cancellation.Cancel();
  });
  EXPECT_FALSE(result.ok());
}

}  // namespace
}  // namespace videonsa::client
