// 200 MB through a real server process: the stream is cut four times at random points, once by
// killing the server with -9; the clip completes with the right SHA-256.
#include <google/rpc/error_details.pb.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <random>

#include "gtest/gtest.h"
#include "runtime/base/hash.h"
#include "tests/server/test_server.h"
#include "tests/support/server_process.h"

namespace videonsa {
namespace {

constexpr int64_t kBytes = 200'000'000;
constexpr int64_t kChunk = 1 << 20;

std::string RandomBytes(std::mt19937_64& random) {
  std::string bytes(kBytes, '\0');
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, sizeof(word));
  }
  return bytes;
}

class UploadCrashTest : public ::testing::TestWithParam<const char*> {
 protected:
  void Start() {
    server_.reset();
    const absl::Status started =
        testing::ServerProcess::Start({.binary = std::string(VIDEONSA_BIN_DIR) + GetParam(),
                                       .clip_dir = folder_.path() + "/clips"},
                                      server_);
    ASSERT_TRUE(started.ok()) << started;
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::ClipService::NewStub(channel_);
  }

  int64_t Committed(const std::string& upload_id) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    v1::QueryUploadRequest request;
    request.set_upload_id(upload_id);
    v1::QueryUploadResponse response;
    const grpc::Status status = stub_->QueryUpload(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.committed_size();
  }

  // Sends from `offset` up to `stop`, then calls `cut` if that is not the end.
  grpc::Status Send(const std::string& upload_id, const std::string& bytes, int64_t offset,
                    int64_t stop, const std::function<void(grpc::ClientContext&)>& cut,
                    v1::UploadClipResponse* response) {
    grpc::ClientContext context;
    auto writer = stub_->UploadClip(&context, response);
    v1::UploadClipRequest message;
    message.mutable_header()->set_upload_id(upload_id);
    message.mutable_header()->set_write_offset(offset);
    bool open = writer->Write(message);
    while (open && offset < stop) {
      const std::string data = bytes.substr(static_cast<size_t>(offset), kChunk);
      message.mutable_chunk()->set_offset(offset);
      message.mutable_chunk()->set_data(data);
      message.mutable_chunk()->set_crc32c(Crc32c(data));
      offset += static_cast<int64_t>(data.size());
      message.mutable_chunk()->set_finish(offset == kBytes);
      open = writer->Write(message);
    }
    if (offset < kBytes) cut(context);
    writer->WritesDone();
    return writer->Finish();
  }

  TemporaryFolder folder_;
  std::unique_ptr<testing::ServerProcess> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ClipService::Stub> stub_;
};

TEST_P(UploadCrashTest, CompletesAfterFourCutsAndOneKill) {
  const uint64_t seed = std::random_device()();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string bytes = RandomBytes(random);
  const Sha256Digest digest = Sha256Of(bytes);
  const std::string sha256(digest.begin(), digest.end());
  std::filesystem::create_directory(folder_.path() + "/clips");
  Start();
  v1::StartUploadRequest request;
  request.set_request_id("upload-1");
  request.set_size_bytes(kBytes);
  request.set_sha256(sha256);
  v1::StartUploadResponse started;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->StartUpload(&context, request, &started).ok());
  }
  const std::string& id = started.upload_id();
  std::vector<int64_t> cuts;
  for (int i = 0; i < 4; ++i) cuts.push_back(static_cast<int64_t>(random() % (kBytes - kChunk)));
  std::sort(cuts.begin(), cuts.end());
  int64_t committed = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const bool kill_server = i == 2;
    v1::UploadClipResponse response;
    const grpc::Status status = Send(
        id, bytes, committed, std::max(cuts[i], committed),
        [&](grpc::ClientContext& context) {
          if (kill_server) {
            server_->Signal(SIGKILL);
          } else {
            context.TryCancel();
          }
        },
        &response);
    EXPECT_FALSE(status.ok());
    if (kill_server) Start();
    const int64_t now = Committed(id);
    EXPECT_GE(now, committed) << "the committed size went down";
    EXPECT_LE(now, std::max(cuts[i], committed) + kChunk);
    committed = now;
  }
  EXPECT_GT(committed, 0);
  // A stream that was cut may still be writing down what had arrived: ask again when told to.
  v1::UploadClipResponse response;
  grpc::Status status;
  for (int attempt = 0; attempt < 10 && !response.complete(); ++attempt) {
    status = Send(
        id, bytes, Committed(id), kBytes, [](grpc::ClientContext&) {}, &response);
  }
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.complete());
  EXPECT_EQ(response.clip().sha256(), sha256);
  EXPECT_EQ(response.clip().size_bytes(), kBytes);
  grpc::ClientContext again_context;
  v1::StartUploadResponse again;
  ASSERT_TRUE(stub_->StartUpload(&again_context, request, &again).ok());
  EXPECT_EQ(again.clip().name(), started.clip().name());
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);
}

INSTANTIATE_TEST_SUITE_P(Binaries, UploadCrashTest,
                         ::testing::Values("/../tests/fake_runtime_server", "/videonsa-server"));

}  // namespace
}  // namespace videonsa
