#include "runtime/serving/settings.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int kReleasedMaxBlocks = 32;  // attention.md section 4, step 4

// A checkpoint with gates was trained with NSA even where the server runs it dense.
bool TrainedSparse(const ExecutorInfo& info) {
  return info.has_gates || IsNativeSparse(info.semantics);
}

absl::Status Unsupported(const ExecutorInfo& info, AttentionSemantics asked) {
  std::string trained = SemanticsName(info.semantics), can = "dense";
  if (IsNativeSparse(info.semantics)) {
    can = absl::StrCat(trained, " and dense");
  } else if (info.has_gates) {
    trained = "native sparse attention, which this server has switched off,";
  } else {
    can = "dense and the training-free patterns";
  }
  return MakeError(absl::StatusCode::kInvalidArgument,
                   ErrorInfo{.reason = "ATTENTION_UNSUPPORTED",
                             .metadata = {{"asked", SemanticsName(asked)}, {"trained", trained}},
                             .field = "question.attention.mode"},
                   absl::StrCat("question.attention.mode: this checkpoint was trained with ",
                                trained, " and can run ", can, ", not ", SemanticsName(asked)));
}

absl::Status BudgetUnreachable(double wanted, double least, const char* why) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      ErrorInfo{.reason = "BUDGET_UNREACHABLE",
                .metadata = {{"least", absl::StrFormat("%.6f", least)}},
                .field = "question.attention.max_budget_fraction"},
      absl::StrFormat("question.attention.max_budget_fraction: %.6f cannot be reached, %s %.6f",
                      wanted, why, least));
}

// Whether a checkpoint can run `asked` as a request's choice.
bool CanRun(const ExecutorInfo& info, AttentionSemantics asked) {
  if (asked == AttentionSemantics::kDense) return true;
  return IsTrainingFree(asked) ? !TrainedSparse(info) : asked == info.semantics;
}

// Blocks and window of native sparse attention: the request's, else as trained.
absl::Status ResolveBudget(const AttentionParams& params, const ExecutorInfo& info,
                           AttentionSettings& settings) {
  settings.selected_blocks = params.selected_blocks.value_or(info.selected_blocks);
  settings.window_tokens = params.window_tokens.value_or(info.window_tokens);
  if (settings.selected_blocks < 1 || settings.window_tokens < 1) {
    return InvalidField(
        "question.attention",
        absl::StrCat("selected_blocks ", settings.selected_blocks, " and window_tokens ",
                     settings.window_tokens, ", both are at least 1"));
  }
  if (settings.semantics == AttentionSemantics::kReleasedNsa &&
      settings.selected_blocks > kReleasedMaxBlocks) {
    return InvalidField("question.attention.selected_blocks",
                        absl::StrCat(settings.selected_blocks, " is above ", kReleasedMaxBlocks,
                                     ", the most that released_nsa can select"));
  }
  return absl::OkStatus();
}

// The largest value in [1, high] for which `fits` holds, or 0. Requires: fits is monotone.
template <typename Fits>
int LargestThatFits(int high, Fits fits) {
  int low = 0;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Lowers settings until the forecast is within `fraction`.
absl::Status Clamp(double fraction, const std::vector<uint8_t>& rows, ResolvedAttention& out) {
  const auto budget = [&] { return out.forecast.budget_fraction(); };
  if (budget() <= fraction) return absl::OkStatus();
  if (out.settings.semantics == AttentionSemantics::kDense) {
    return BudgetUnreachable(fraction, budget(), "dense attention spends");
  }
  if (IsTrainingFree(out.settings.semantics)) {
    return BudgetUnreachable(fraction, budget(),
                             "a training-free pattern chooses from the data and may spend up to");
  }
  const auto with = [&](int blocks, int window) {
    out.settings.selected_blocks = blocks;
    out.settings.window_tokens = window;
    out.forecast = ForecastPairs(rows, out.settings);
    return budget() <= fraction;
  };
  const int window = out.settings.window_tokens;
  int blocks =
      LargestThatFits(out.settings.selected_blocks, [&](int value) { return with(value, window); });
  int kept_window = window;
  if (blocks == 0) {
    blocks = 1;
    kept_window = LargestThatFits(window, [&](int value) { return with(1, value); });
    if (kept_window == 0) {
      with(1, 1);
      return BudgetUnreachable(fraction, budget(),
                               "text rows, pooled blocks, one block and one token spend");
    }
  }
  with(blocks, kept_window);
  out.effective.clamped = true;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResolvedGeneration> ResolveGeneration(const GenerationParams& params,
                                                     const GenerationDefaults& defaults,
                                                     int64_t prompt_tokens,
                                                     int64_t max_context_tokens,
                                                     uint64_t random_seed) {
  ResolvedGeneration out;
  const int64_t room = max_context_tokens - prompt_tokens;
  if (room < 1) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        ErrorInfo{.reason = "CONTEXT_TOO_LONG",
                  .metadata = {{"prompt_tokens", absl::StrCat(prompt_tokens)},
                               {"limit", absl::StrCat(max_context_tokens)}},
                  .field = "question.turns"},
        absl::StrCat("question.turns: ", prompt_tokens, " prompt tokens leave no room in the ",
                     "context of ", max_context_tokens, " tokens"));
  }
  if (params.max_output_tokens.value_or(1) < 1 ||
      params.max_output_tokens.value_or(1) > defaults.output_tokens_limit) {
    return InvalidField("question.generation.max_output_tokens",
                        absl::StrCat(*params.max_output_tokens, " is not within 1 to ",
                                     defaults.output_tokens_limit));
  }
  SamplingSettings& s = out.sampling;
  s.max_output_tokens = params.max_output_tokens.value_or(
      std::min(defaults.max_output_tokens, defaults.output_tokens_limit));
  if (!params.max_output_tokens && s.max_output_tokens > room) {
    s.max_output_tokens = static_cast<int>(room);
    out.limited_by_context = true;
  }
  s.temperature =
      params.temperature.value_or(defaults.do_sample ? defaults.temperature.value_or(1.0f) : 0.0f);
  s.top_p = params.top_p.value_or(defaults.top_p.value_or(1.0f));
  s.top_k = params.top_k.value_or(defaults.top_k.value_or(0));
  s.min_p = params.min_p.value_or(0.0f);
  s.repetition_penalty =
      params.repetition_penalty.value_or(defaults.repetition_penalty.value_or(1.0f));
  s.seed = params.seed.value_or(random_seed);
  s.num_logprobs = params.want_logprobs ? params.top_logprobs : -1;
  s.suppress_eos = params.ignore_eos;
  out.effective = params;
  out.effective.max_output_tokens = s.max_output_tokens;
  out.effective.temperature = s.temperature;
  out.effective.top_p = s.top_p;
  out.effective.top_k = s.top_k;
  out.effective.min_p = s.min_p;
  out.effective.repetition_penalty = s.repetition_penalty;
  out.effective.seed = s.seed;
  return out;
}

absl::StatusOr<ResolvedAttention> ResolveAttention(const AttentionParams& params,
                                                   const ReportParams& report,
                                                   const ExecutorInfo& info,
                                                   const SequenceSpec& spec) {
  ResolvedAttention out;
  const AttentionSemantics asked = params.semantics.value_or(info.semantics);
  if (!CanRun(info, asked)) return Unsupported(info, asked);
  AttentionSettings& settings = out.settings;
  settings.semantics = asked;
  if (IsNativeSparse(asked)) {
    VNSA_RETURN_IF_ERROR(ResolveBudget(params, info, settings));
    settings.want_gates = report.gates;
    // attention.md section 4: dense, whatever was asked
    if (spec.vision_spans.empty()) settings = AttentionSettings{};
  } else if (params.selected_blocks || params.window_tokens) {
    return InvalidField("question.attention",
                        absl::StrCat("selected_blocks and window_tokens need native sparse "
                                     "attention, this question runs ",
                                     SemanticsName(asked)));
  }
  settings.want_evidence = report.evidence && !spec.vision_spans.empty();
  SequenceSpec shape;  // VisionRows needs the semantics decided here
  shape.token_ids = spec.token_ids;
  shape.positions = spec.positions;
  shape.vision_spans = spec.vision_spans;
  shape.attention = settings;
  const std::vector<uint8_t> rows = VisionRows(shape);
  out.forecast = ForecastPairs(rows, settings);
  if (params.max_budget_fraction) {
    VNSA_RETURN_IF_ERROR(Clamp(*params.max_budget_fraction, rows, out));
  }
  out.effective.semantics = settings.semantics;
  out.effective.selected_blocks = settings.selected_blocks;
  out.effective.window_tokens = settings.window_tokens;
  out.effective.copies = settings.semantics == AttentionSemantics::kReleasedNsa ? 2 : 1;
  return out;
}

}  // namespace videonsa
