// Broken clips, wrong fields and killed processes: a typed error for that request, answers for the
// others.
#include <signal.h>

#include <thread>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

class FaultsTest : public ServerTest {
 protected:
  // ErrorInfo.reason of a status, or "".
  static std::string ReasonOf(const grpc::Status& status) {
    google::rpc::Status details;
    details.ParseFromString(status.error_details());
    for (const auto& any : details.details()) {
      google::rpc::ErrorInfo info;
      if (any.UnpackTo(&info)) return info.reason();
    }
    return "";
  }
  static void ExpectHealthy() {
    pb::AskResult result;
    const grpc::Status status = Ask(ClipQuestion("", "Still there?"), &result);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
};

TEST_F(FaultsTest, EveryBrokenFileGetsATypedError) {
  int files = 0;
  for (const char* folder : {"bad-video", "bad-image"}) {
    for (const auto& entry : std::filesystem::directory_iterator(MediaPath(folder))) {
      const std::string bytes = ReadFile(entry.path());
      if (bytes.size() > 3 << 20 || entry.path().extension() == ".md") continue;
      ++files;
      pb::Question question = ClipQuestion("", "What?");
      pb::Part* part = question.mutable_turns(0)->add_parts();
      if (std::string(folder) == "bad-video") {
        part->mutable_clip()->set_inline_data(bytes);
      } else {
        part->mutable_image()->set_inline_data(bytes);
      }
      pb::AskResult result;
      const grpc::Status status = Ask(question, &result);
      if (status.ok()) continue;  // damaged but readable: FFmpeg and Pillow read it too
      EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << entry.path();
      EXPECT_THAT(ReasonOf(status), ::testing::StartsWith("MEDIA_")) << entry.path();
      EXPECT_EQ(status.error_message().find('/'), std::string::npos) << status.error_message();
    }
  }
  EXPECT_GE(files, 8);
  ExpectHealthy();
}

TEST_F(FaultsTest, WrongFieldsAreNamed) {
  struct Case {
    const char* field;
    void (*spoil)(pb::Question*);
  };
  const Case cases[] = {
      {"turns", [](pb::Question* q) { q->clear_turns(); }},
      {"role", [](pb::Question* q) { q->mutable_turns(0)->set_role(pb::Turn::ROLE_UNSPECIFIED); }},
      {"role",
       [](pb::Question* q) { q->mutable_turns(0)->set_role(static_cast<pb::Turn::Role>(9)); }},
      {"fps",
       [](pb::Question* q) {
         q->mutable_turns(0)->mutable_parts(0)->mutable_clip()->mutable_sampling()->set_fps(-1);
       }},
      {"num_frames",
       [](pb::Question* q) {
         q->mutable_turns(0)->mutable_parts(0)->mutable_clip()->mutable_sampling()->set_num_frames(
             1 << 30);
       }},
      {"temperature", [](pb::Question* q) { q->mutable_generation()->set_temperature(-1); }},
      {"top_p", [](pb::Question* q) { q->mutable_generation()->set_top_p(0); }},
      {"max_output_tokens",
       [](pb::Question* q) { q->mutable_generation()->set_max_output_tokens(0); }},
      {"max_budget_fraction",
       [](pb::Question* q) { q->mutable_attention()->set_max_budget_fraction(1.5); }},
      {"selected_blocks", [](pb::Question* q) { q->mutable_attention()->set_selected_blocks(0); }},
      {"window_tokens", [](pb::Question* q) { q->mutable_attention()->set_window_tokens(-5); }},
  };
  const std::string clip = ReadFile(MediaPath("stream-of-water.mp4"));
  for (const Case& c : cases) {
    pb::Question question = ClipQuestion(clip, "What?");
    c.spoil(&question);
    pb::AskResult result;
    const grpc::Status status = Ask(question, &result);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT)
        << c.field << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), ::testing::HasSubstr(c.field));
    EXPECT_FALSE(ReasonOf(status).empty()) << c.field;
  }
  ExpectHealthy();
}

TEST_F(FaultsTest, TooLongTextAndUnknownClipsAreRefused) {
  pb::AskResult result;
  grpc::Status status = Ask(ClipQuestion("", std::string(3 << 20, 'a')), &result);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << status.error_message();
  pb::Question question = ClipQuestion("", "What?");
  question.mutable_turns(0)->add_parts()->mutable_clip()->set_clip(
      "clips/aaaaaaaaaaaaaaaaaaaaaaaaaa");
  status = Ask(question, &result);
  EXPECT_EQ(status.error_code(), grpc::NOT_FOUND) << status.error_message();
  ExpectHealthy();
}

TEST_F(FaultsTest, KilledDecodersFailOnlyTheirRequestAndComeBack) {
  const std::string clip = ReadFile(MediaPath("stream-of-water.mp4"));
  std::atomic<bool> stop{false};
  std::thread killer([&] {
    while (!stop) {
      for (const pid_t child : server_->Children()) kill(child, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(7));
    }
  });
  int failed = 0;
  for (int i = 0; i < 20; ++i) {
    pb::AskResult result;
    const grpc::Status status =
        Ask(ClipQuestion(clip, "Attempt " + std::to_string(i) + "?", 1), &result);
    if (status.ok()) continue;
    ++failed;
    EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE) << status.error_message();
    EXPECT_EQ(ReasonOf(status), "DECODER_DIED");
  }
  stop = true;
  killer.join();
  EXPECT_GT(failed, 0) << "no decoder was hit";
  pb::AskResult result;
  const grpc::Status status = Ask(ClipQuestion(clip, "Back?", 2), &result);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

}  // namespace
}  // namespace videonsa::testing
