// Answers of many sequences at once on a GPU beside each of them alone.
#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/status_macros.h"
#include "tests/golden/check_device.h"

namespace videonsa::golden {
namespace {

constexpr int kSequences = 64;
constexpr int kPagesOfOne = 12;
constexpr int kPrefilledAStep = 3;

SequenceSpec PromptOf(const ModelExecutor& executor, int index) {
  const int frames = index % 4 == 0 ? 0 : 2 + index % 5, side = 4 + 2 * (index % 3);
  SequenceSpec spec =
      MadeUpPrompt(executor.model().config(), executor.info(), static_cast<uint64_t>(1000 + index),
                   9 + 7 * (index % 11), {frames, side, side + 2});
  if (index % 3 == 0) spec.attention.semantics = AttentionSemantics::kDense;
  spec.sampling.max_output_tokens = 4 + index % 13;
  if (index % 5 == 0) {
    spec.sampling.temperature = 0.8f;
    spec.sampling.seed = static_cast<uint64_t>(index);
  }
  return spec;
}

absl::StatusOr<std::vector<int32_t>> AnswerAlone(ModelExecutor& executor, int index) {
  VNSA_ASSIGN_OR_RETURN(const AnswerTrace trace, TraceAnswer(executor, PromptOf(executor, index)));
  return trace.ids;
}

// A few prompts enter a step; all that have been answered in part decode beside them.
absl::StatusOr<std::vector<std::vector<int32_t>>> AnswerTogether(ModelExecutor& executor,
                                                                 size_t& most) {
  std::vector<std::vector<int32_t>> answers(kSequences);
  std::vector<int> wanted(kSequences);
  int entered = 0, finished = 0;
  std::vector<int> running;
  for (uint64_t step = 0; finished < kSequences; ++step) {
    StepPlan plan;
    plan.step = step;
    for (int i : running) plan.decode.push_back(SequenceId{static_cast<uint64_t>(i + 1)});
    for (int i = 0; i < kPrefilledAStep && entered < kSequences; ++i, ++entered) {
      SequenceSpec spec = PromptOf(executor, entered);
      spec.id = SequenceId{static_cast<uint64_t>(entered + 1)};
      spec.page_ids.resize(kPagesOfOne);
      std::iota(spec.page_ids.begin(), spec.page_ids.end(), entered * kPagesOfOne);
      wanted[static_cast<size_t>(entered)] = spec.sampling.max_output_tokens;
      for (size_t v = 0; v < spec.visuals.size(); ++v) {
        plan.vision.push_back({spec.id, static_cast<int>(v), 0, spec.visuals[v]->grid().t});
      }
      plan.prefill.push_back(
          {spec.id, 0, static_cast<int>(spec.token_ids.size()), 0, executor.info().num_layers});
      VNSA_RETURN_IF_ERROR(executor.AddSequence(std::move(spec)));
      running.push_back(entered);
    }
    most = std::max(most, plan.decode.size());
    VNSA_ASSIGN_OR_RETURN(const StepResult result, executor.Run(plan));
    for (const SampledToken& token : result.tokens) {
      answers[static_cast<size_t>(token.sequence.value - 1)].push_back(token.token_id);
    }
    std::erase_if(running, [&](int i) {
      const bool done = static_cast<int>(answers[static_cast<size_t>(i)].size()) >=
                        wanted[static_cast<size_t>(i)];
      if (done) executor.ReleaseSequence(SequenceId{static_cast<uint64_t>(i + 1)});
      finished += done;
      return done;
    });
  }
  return answers;
}

}  // namespace

void CheckTogether(const std::string& model_dir, Reporter& reporter) {
  ExecutorOptions options;
  options.model_dir = model_dir;
  options.device = DeviceKind::kCuda;
  options.compute_type = ComputeType::kBF16;
  options.num_pages = kSequences * kPagesOfOne;
  options.batch_invariant = true;
  auto executor = ModelExecutor::Create(options);
  if (!reporter.ExpectOk("together", "model", executor.status())) return;
  size_t most = 0;
  const auto together = AnswerTogether(**executor, most);
  if (!reporter.ExpectOk("together", "answers", together.status())) return;
  int equal = 0, tokens = 0;
  for (int i = 0; i < kSequences; ++i) {
    const auto alone = AnswerAlone(**executor, i);
    if (!reporter.ExpectOk("together", "alone", alone.status())) return;
    equal += *alone == (*together)[static_cast<size_t>(i)];
    tokens += static_cast<int>(alone->size());
  }
  reporter.Record(equal == kSequences, "together", "answers in bf16, batch-invariant",
                  absl::StrFormat("%d of %d mixed requests answered as alone (%d tokens, up to %d "
                                  "sequences in a step)",
                                  equal, kSequences, tokens, most));
}

}  // namespace videonsa::golden
