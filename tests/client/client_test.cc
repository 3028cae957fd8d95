#include "client/client.h"

#include <gtest/gtest.h>

#include "client/error.h"
#include "client/json.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

class ClientTest : public testing::Test {
 protected:
  ClientTest() : client_(*VideoNsaClient::Create({.address = server_.address()})) {}

  FakeState state_;
  FakeServer server_{state_};
  std::unique_ptr<VideoNsaClient> client_;
};

TEST_F(ClientTest, ListsAllPages) {
  {
    absl::MutexLock lock(&state_.mutex);
    for (const char* name : {"clips/a", "clips/b", "clips/c", "clips/d", "clips/e"}) {
      state_.clips[name].set_name(name);
    }
  }
  EXPECT_EQ(client_->ListClips(0, {})->size(), 5u);
  EXPECT_EQ(client_->ListClips(3, {})->size(), 3u);
  EXPECT_TRUE(client_->DeleteClip("clips/a", false, {}).ok());
  EXPECT_EQ(DetailsOf(client_->DeleteClip("clips/a", false, {})).reason, "CLIP_NOT_FOUND");
  EXPECT_TRUE(client_->DeleteClip("clips/a", true, {}).ok());
}

TEST_F(ClientTest, WatchEndsWhenTheClipIsSettled) {
  {
    absl::MutexLock lock(&state_.mutex);
    state_.clips["clips/a"].set_name("clips/a");
  }
  int changes = 0;
  const auto clip = client_->WatchClip("clips/a", [&](const auto&) { ++changes; }, {});
  ASSERT_TRUE(clip.ok()) << clip.status();
  EXPECT_EQ(clip->state(), proto::Clip::STATE_READY);
  EXPECT_EQ(changes, 2);
  EXPECT_EQ(client_->WatchClip("clips/none", nullptr, {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, HealthByName) {
  EXPECT_TRUE(*client_->CheckHealth("", {}));
  EXPECT_EQ(client_->CheckHealth("nobody", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, ModelStatusEstimate) {
  EXPECT_EQ(client_->GetModel({})->name(), "fake");
  EXPECT_EQ(client_->GetServerStatus({})->running(), 3);
  EXPECT_EQ(client_->Estimate({}, {})->frames(), 32);
}

TEST_F(ClientTest, UnimplementedCallsSaySo) {
  EXPECT_EQ(client_->ImportClip({}, {}).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(client_->Drain(absl::Seconds(1), {}).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(Channel, ServiceConfigIsJsonAndLeavesStreamsAlone) {
  const auto config = ParseJson(ServiceConfigJson());
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string text = ServiceConfigJson();
  EXPECT_EQ(text.find("AskStream"), std::string::npos);
  EXPECT_EQ(text.find("UploadClip"), std::string::npos);
  EXPECT_EQ(NumberAt(*config, "retryThrottling.maxTokens", 0), 10);
}

TEST(Channel, BadPemFilesAreRefused) {
  EXPECT_EQ(OpenChannel({.ca_file = "/does/not/exist.pem"}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenChannel({.cert_file = "a.pem"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Channel, NobodyListensIsUnavailable) {
  auto client = *VideoNsaClient::Create({.address = "127.0.0.1:1"});
  CallOptions options;
  options.timeout = absl::Seconds(10);
  const absl::Status status = client->GetModel(options).status();
  EXPECT_TRUE(status.code() == absl::StatusCode::kUnavailable) << status;
}

TEST(Files, WriteIsWhole) {
  const std::string path = testing::TempDir() + "/whole.txt";
  ASSERT_TRUE(WriteFile(path, "one").ok());
  ASSERT_TRUE(WriteFile(path, "two").ok());
  EXPECT_EQ(*ReadFile(path), "two");
  EXPECT_EQ(DetailsOf(WriteFile("/does/not/exist/x", "")).reason, "FILE_UNWRITABLE");
  EXPECT_FALSE(ReadFile(testing::TempDir()).ok());
}

}  // namespace
}  // namespace videonsa::client
