// A server whose pages are short: a batch answer leaves for interactive questions, comes back and
// says what it says alone; the operator sees it, and the pages come back.
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

constexpr int kBatchTokens = 1200, kInteractiveTokens = 700;

struct Answer {
  std::string text;
  pb::AskResult result;
};

class PreemptionTest : public ServerTest {
 protected:
  static pb::Question Make(const char* clip, pb::Priority priority, int tokens, bool sampled) {
    pb::Question question = ClipQuestion(ReadFile(MediaPath(clip)), "What is it?", tokens);
    question.set_priority(priority);
    question.mutable_generation()->set_ignore_eos(true);
    if (sampled) {
      question.mutable_generation()->set_temperature(0.9f);
      question.mutable_generation()->set_seed(5);
      question.mutable_generation()->set_repetition_penalty(1.1f);
    }
    return question;
  }
  static pb::Question Batch() {
    return Make("sample_video_only.mp4", pb::PRIORITY_BATCH, kBatchTokens, true);
  }
  static pb::Question Interactive() {
    return Make("stream-of-water.mp4", pb::PRIORITY_INTERACTIVE, kInteractiveTokens, false);
  }

  static Answer Whole(const pb::Question& question) {
    Answer answer;
    const grpc::Status status = Ask(question, &answer.result, 300);
    EXPECT_TRUE(status.ok()) << status.error_message();
    answer.text = answer.result.text();
    return answer;
  }

  // Sum of the samples of a metric whose labels contain `label`.
  static double Metric(const std::string& name, const std::string& label = "") {
    std::stringstream body(Scrape());
    double sum = 0;
    for (std::string line; std::getline(body, line);) {
      const bool same = line.rfind(name + "{", 0) == 0 || line.rfind(name + " ", 0) == 0;
      if (!same || line.find(label) == std::string::npos) continue;
      sum += std::stod(line.substr(line.rfind(' ') + 1));
    }
    return sum;
  }
  static void AwaitIdle() {
    for (int attempt = 0; attempt < 200; ++attempt) {
      if (Metric("videonsa_kv_pages", "state=\"active\"") == 0 &&
          Metric("videonsa_requests_running") == 0) {
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    ADD_FAILURE() << "pages are still held: " << Metric("videonsa_kv_pages", "state=\"active\"");
  }

  // Streams the batch answer; beside it interactive questions, one after the other.
  static Answer Disturbed(int times, const Answer& interactive_alone) {
    grpc::ClientContext context;
    pb::AskStreamRequest request;
    *request.mutable_question() = Batch();
    auto reader = qa_->AskStream(&context, request);
    Answer answer;
    pb::AskStreamResponse event;
    std::vector<std::thread> askers;
    std::atomic<bool> asking = false;
    while (reader->Read(&event)) {
      if (event.has_final()) answer.result = event.final();
      if (!event.has_delta()) continue;
      answer.text += event.delta().text();
      if (static_cast<int>(askers.size()) == times || asking.exchange(true)) continue;
      askers.emplace_back([&] {
        EXPECT_EQ(Whole(Interactive()).text, interactive_alone.text);
        asking = false;
      });
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_FALSE(askers.empty());
    for (std::thread& asker : askers) asker.join();
    return answer;
  }
};

TEST_F(PreemptionTest, ABatchAnswerLeavesAndGoesOnIdenticallyOverGrpc) {
  StartServer({"--kv-bytes", "64M"});
  const double page_bytes = double{64 << 20} / Metric("videonsa_kv_pages_capacity");
  const Answer batch = Whole(Batch()), interactive = Whole(Interactive());
  ASSERT_EQ(batch.result.usage().output_tokens(), kBatchTokens);
  const double most = static_cast<double>(
      std::max(batch.result.usage().kv_pages_peak(), interactive.result.usage().kv_pages_peak()));
  const std::string few = std::to_string(static_cast<int64_t>((most + 1) * page_bytes));
  for (const int limit : {2, 0}) {
    StartServer({"--kv-bytes", few, "--max-preemptions", std::to_string(limit)});
    const double pages = Metric("videonsa_kv_pages_capacity");
    ASSERT_GE(pages, most);
    ASSERT_LT(pages, static_cast<double>(batch.result.usage().kv_pages_peak() +
                                         interactive.result.usage().kv_pages_peak()));
    const Answer disturbed = Disturbed(3, interactive);
    EXPECT_EQ(disturbed.text, batch.text);
    EXPECT_EQ(disturbed.result.usage().output_tokens(), kBatchTokens);
    EXPECT_EQ(disturbed.result.timing().preemptions(), limit);
    EXPECT_EQ(Metric("videonsa_preemptions_total", "priority=\"batch\""), limit);
    EXPECT_EQ(Metric("videonsa_preemptions_total", "reason=\"memory\""), limit);
    grpc::ClientContext context;
    pb::GetServerStatusResponse state;
    ASSERT_TRUE(status_->GetServerStatus(&context, {}, &state).ok());
    EXPECT_EQ(state.preemptions(), limit);
    EXPECT_TRUE(state.has_cost_model());
    AwaitIdle();
    EXPECT_EQ(Metric("videonsa_kv_pages"), pages);
    std::printf("%.0f pages, limit %d: left %d times for 3 questions, %.3f s away\n", pages, limit,
                disturbed.result.timing().preemptions(),
                static_cast<double>(disturbed.result.timing().preempted().seconds()) +
                    1e-9 * disturbed.result.timing().preempted().nanos());
  }
}

TEST_F(PreemptionTest, TheCostModelIsFittedBeforeTheFirstQuestion) {
  for (const bool warm : {true, false}) {
    StartServer({"--warm-up", warm ? "0.3" : "0"});
    grpc::ClientContext context;
    pb::GetServerStatusResponse state;
    ASSERT_TRUE(status_->GetServerStatus(&context, {}, &state).ok());
    EXPECT_EQ(state.cost_model().steps(), 0);
    const std::string& text = state.cost_model().description();
    EXPECT_EQ(text.find("fitted to 0 slices") == std::string::npos, warm) << text;
    EXPECT_EQ(state.kv_pages_used(), 0);
  }
}

}  // namespace
}  // namespace videonsa::testing
