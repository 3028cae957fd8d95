// Many requests of every kind at once answer token for token as each of them alone: native and
// dense attention, budgets, clips, pictures, lengths, priorities, greedy and seeded sampling, with
// cancels and deadlines among them. VIDEONSA_IDENTITY_REQUESTS and VIDEONSA_IDENTITY_STREAMS make
// it larger ("make identity": 200 at 32).
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

class IdentityTest : public ServerTest {};

int FromEnvironment(const char* name, int fallback) {
  const char* const value = std::getenv(name);
  return value != nullptr ? std::max(1, std::atoi(value)) : fallback;
}

enum class Fate { kAnswered, kCancelled, kShortDeadline };

Fate FateOf(int i) {
  if (i % 11 == 4) return Fate::kCancelled;
  return i % 17 == 9 ? Fate::kShortDeadline : Fate::kAnswered;
}

pb::Question QuestionOf(int i) {
  static const std::string clips[] = {ReadFile(MediaPath("stream-of-water.mp4")),
                                      ReadFile(MediaPath("sample_video_only.mp4")), ""};
  pb::Question question = ClipQuestion(
      clips[i % 3], "Question " + std::to_string(i % 29) + std::string(7 * (i % 6), '?'),
      4 + (i * 7) % 45);
  pb::Turn& turn = *question.mutable_turns(0);
  if (i % 7 == 3) {  // a second clip
    pb::Part& part = *turn.add_parts();
    part.mutable_clip()->set_inline_data(clips[(i / 7) % 2]);
    part.mutable_clip()->mutable_sampling()->set_num_frames(2 + 2 * (i % 3));
    part.mutable_clip()->mutable_sampling()->set_max_pixels_per_frame(50176);
    turn.add_parts()->set_text("and this?");
  }
  if (i % 3 != 2 && i % 5 == 1) {
    turn.mutable_parts(0)->mutable_clip()->mutable_sampling()->set_num_frames(4 + 2 * (i % 7));
  }
  const bool visual = i % 3 != 2 || i % 7 == 3;
  pb::AttentionConfig& attention = *question.mutable_attention();
  if (i % 4 == 1) attention.set_mode(pb::AttentionConfig::MODE_DENSE);
  if (i % 4 == 2 && visual) attention.set_selected_blocks(1 + i % 3);
  if (i % 4 == 3 && visual) attention.set_window_tokens(16 + 16 * (i % 4));
  pb::GenerationConfig& generation = *question.mutable_generation();
  generation.set_top_logprobs(i % 2);
  generation.set_seed(1000 + i);
  generation.set_ignore_eos(i % 3 != 1);  // the model's own answers are short
  if (i % 5 >= 3) {
    generation.set_temperature(0.5f + 0.1f * static_cast<float>(i % 6));
    generation.set_top_p(0.9f);
    if (i % 5 == 4) generation.set_repetition_penalty(1.1f);
  }
  question.set_priority(static_cast<pb::Priority>(1 + i % 3));
  return question;
}

struct Outcome {
  std::vector<int32_t> ids;
  grpc::Status status;
};

Outcome Stream(pb::VideoQaService::Stub* stub, int i, bool alone) {
  const Fate fate = alone ? Fate::kAnswered : FateOf(i);
  grpc::ClientContext context;
  const auto limit = fate == Fate::kShortDeadline ? std::chrono::milliseconds(20 + 13 * (i % 40))
                                                  : std::chrono::milliseconds(900'000);
  context.set_deadline(std::chrono::system_clock::now() + limit);
  pb::AskStreamRequest request;
  *request.mutable_question() = QuestionOf(i);
  auto reader = stub->AskStream(&context, request);
  pb::AskStreamResponse event;
  Outcome outcome;
  for (int events = 0; reader->Read(&event); ++events) {
    for (const pb::TokenLogprob& token : event.delta().logprobs()) {
      outcome.ids.push_back(token.token_id());
    }
    if (fate == Fate::kCancelled && events == i % 6) context.TryCancel();
  }
  outcome.status = reader->Finish();
  return outcome;
}

TEST_F(IdentityTest, MixedRequestsAtOnceAnswerTokenForTokenAsAlone) {
  const int requests = FromEnvironment("VIDEONSA_IDENTITY_REQUESTS", 36);
  const int streams = FromEnvironment("VIDEONSA_IDENTITY_STREAMS", 12);
  std::vector<Outcome> alone(requests), together(requests);
  for (int i = 0; i < requests; ++i) {
    alone[i] = Stream(qa_.get(), i, true);
    ASSERT_TRUE(alone[i].status.ok()) << i << ": " << alone[i].status.error_message();
    ASSERT_FALSE(alone[i].ids.empty()) << i;
  }
  StartServer();  // one that has seen nothing
  std::atomic<int> next{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < streams; ++t) {
    threads.emplace_back([&] {
      for (int i = next++; i < requests; i = next++) together[i] = Stream(qa_.get(), i, false);
    });
  }
  for (std::thread& thread : threads) thread.join();
  int equal = 0, cut = 0;
  int64_t tokens = 0;
  for (int i = 0; i < requests; ++i) {
    const std::vector<int32_t>& want = alone[i].ids;
    const std::vector<int32_t>& got = together[i].ids;
    tokens += static_cast<int64_t>(got.size());
    ASSERT_LE(got.size(), want.size()) << i;
    EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin())) << "request " << i;
    if (FateOf(i) == Fate::kAnswered) {
      EXPECT_TRUE(together[i].status.ok()) << i << ": " << together[i].status.error_message();
      EXPECT_EQ(got.size(), want.size()) << i;
      ++equal;
    } else {
      const grpc::StatusCode code = together[i].status.error_code();
      EXPECT_TRUE(code == grpc::OK || code == grpc::CANCELLED || code == grpc::DEADLINE_EXCEEDED)
          << i << ": " << together[i].status.error_message();
      ++cut;
    }
  }
  std::printf(
      "identity: %d requests at %d at once, %d whole answers equal, %d cut short and equal "
      "up to there, %lld tokens\n",
      requests, streams, equal, cut, static_cast<long long>(tokens));
}

}  // namespace
}  // namespace videonsa::testing
