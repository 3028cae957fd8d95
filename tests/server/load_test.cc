// 32 streams at once, some cancelled, some with short deadlines, some read slowly: the answers of
// the others equal those of the same questions asked alone, and nothing is left behind.
#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

constexpr int kStreams = 32;
constexpr int kRounds = 8;
constexpr int kTokens = 200;

std::string QuestionText(int stream, int round) {
  return absl::StrCat("Question ", stream, " of round ", round, "?");
}

// What one stream does in one round.
enum class Way { kRead, kUnary, kCancel, kDeadline, kSlow, kUpload };

void RunOne(TestServer& server, int stream, int round, std::atomic<int>& wrong,
            std::atomic<int>& answered) {
  const auto way = static_cast<Way>((stream + round) % 6);
  const std::string text = QuestionText(stream, round);
  GenerateRequest plain;
  plain.turns.push_back(Turn{Role::kUser, {TextPart{text}}});
  const std::string expected = FakeRuntime::AnswerText(plain, kTokens);
  v1::Question question = TextQuestion(text);
  question.mutable_generation()->set_max_output_tokens(kTokens);
  if (way == Way::kUpload) {
    v1::Clip clip;
    const std::string bytes(100000, static_cast<char>('a' + stream % 26));
    if (!server.Upload(bytes, &clip, 10000).ok() ||
        server.WaitForClip(clip.name()).state() != v1::Clip::STATE_READY) {
      ++wrong;
    }
    ++answered;
    return;
  }
  if (way == Way::kUnary) {
    v1::AskResult result;
    if (!server.Ask(question, &result).ok() || result.text() != expected) ++wrong;
    ++answered;
    return;
  }
  grpc::ClientContext context;
  if (way == Way::kDeadline) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(30));
  }
  v1::AskStreamRequest request;
  *request.mutable_question() = question;
  auto reader = server.questions().AskStream(&context, request);
  v1::AskStreamResponse event;
  std::string got;
  int events = 0;
  while (reader->Read(&event)) {
    got += event.delta().text();
    if (way == Way::kCancel && ++events == 5) context.TryCancel();
    if (way == Way::kSlow) std::this_thread::yield();
  }
  const grpc::Status status = reader->Finish();
  if (way == Way::kCancel || way == Way::kDeadline) {
    // Whatever arrived is the beginning of the right answer.
    if (expected.compare(0, got.size(), got) != 0) ++wrong;
  } else if (!status.ok() || got != expected) {
    ++wrong;
  }
  ++answered;
}

TEST(Load, MixedStreamsGetTheirOwnAnswers) {
  FakeOptions fake;
  fake.step = absl::Microseconds(200);
  ServerOptions options = TestServer::Options();
  options.clips.tenant_uploads = 64;
  TestServer server(fake, options);
  std::atomic<int> wrong{0}, answered{0};
  std::vector<std::thread> threads;
  for (int stream = 0; stream < kStreams; ++stream) {
    threads.emplace_back([&, stream] {
      for (int round = 0; round < kRounds; ++round) {
        RunOne(server, stream, round, wrong, answered);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(answered, kStreams * kRounds);
  EXPECT_TRUE(server.runtime().WaitIdle(absl::Seconds(20))) << "a question was left behind";
  EXPECT_EQ(server.server().Drain(absl::ZeroDuration(), absl::Seconds(20)), 0);
  EXPECT_EQ(server.server().core().calls.open_questions(), 0);
}

}  // namespace
}  // namespace videonsa
