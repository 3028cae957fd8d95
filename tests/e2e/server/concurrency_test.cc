// 32 streams at once with cancels, deadlines and slow readers: every answer equals that of the same
// request alone, every stream ends once, and nothing is left behind.
#include <atomic>
#include <thread>

#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

constexpr int kStreams = 32;

class ConcurrencyTest : public ServerTest {};

struct Outcome {
  std::string text;
  grpc::Status status;
};

pb::Question QuestionOf(int i) {
  static const std::string clips[] = {ReadFile(MediaPath("stream-of-water.mp4")),
                                      ReadFile(MediaPath("sample_video_only.mp4")), ""};
  pb::Question question = ClipQuestion(clips[i % 3], "Question " + std::to_string(i) + "?", 12 + i);
  if (i % 4 == 1) {
    question.mutable_generation()->set_temperature(0.9f);
    question.mutable_generation()->set_seed(1000 + i);
  }
  return question;
}

// Reads a stream; after `cancel_after` events it cancels, after each event it waits `pause_ms`.
Outcome Stream(pb::VideoQaService::Stub* stub, const pb::Question& question, int cancel_after,
               int pause_ms, int deadline_ms) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
  pb::AskStreamRequest request;
  *request.mutable_question() = question;
  auto reader = stub->AskStream(&context, request);
  pb::AskStreamResponse event;
  Outcome outcome;
  for (int events = 0; reader->Read(&event); ++events) {
    if (event.has_delta()) outcome.text += event.delta().text();
    if (events == cancel_after) context.TryCancel();
    if (pause_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
  }
  outcome.status = reader->Finish();
  return outcome;
}

TEST_F(ConcurrencyTest, AnswersEqualThoseOfTheSameRequestsAlone) {
  std::vector<Outcome> alone(kStreams), together(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    alone[i] = Stream(qa_.get(), QuestionOf(i), -1, 0, 120'000);
    ASSERT_TRUE(alone[i].status.ok()) << i << ": " << alone[i].status.error_message();
  }
  const int files_before = server_->OpenFiles();
  std::vector<std::thread> threads;
  for (int i = 0; i < kStreams; ++i) {
    threads.emplace_back([&, i] {
      const int cancel_after = i % 8 == 5 ? 1 : -1;
      const int pause_ms = i % 8 == 3 ? 20 : 0;
      const int deadline_ms = i % 16 == 7 ? 30 : 300'000;
      together[i] = Stream(qa_.get(), QuestionOf(i), cancel_after, pause_ms, deadline_ms);
    });
  }
  for (std::thread& thread : threads) thread.join();
  int answered = 0;
  for (int i = 0; i < kStreams; ++i) {
    const grpc::StatusCode code = together[i].status.error_code();
    if (i % 8 == 5) {
      EXPECT_TRUE(code == grpc::CANCELLED || code == grpc::OK) << i;
    } else if (i % 16 == 7) {
      EXPECT_TRUE(code == grpc::DEADLINE_EXCEEDED || code == grpc::OK) << i << " " << code;
    } else {
      ASSERT_EQ(code, grpc::OK) << i << ": " << together[i].status.error_message();
      EXPECT_EQ(together[i].text, alone[i].text) << i;
      ++answered;
    }
  }
  EXPECT_GE(answered, kStreams - 6);
  // Nothing is left: no request in the engine, no page in use, no descriptor open.
  pb::GetServerStatusResponse state;
  for (int attempt = 0; attempt < 100; ++attempt) {
    grpc::ClientContext context;
    ASSERT_TRUE(status_->GetServerStatus(&context, {}, &state).ok());
    if (state.running() == 0 && state.waiting() == 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(state.running(), 0);
  EXPECT_EQ(state.waiting(), 0);
  EXPECT_LE(server_->OpenFiles(), files_before + 4);
}

}  // namespace
}  // namespace videonsa::testing
