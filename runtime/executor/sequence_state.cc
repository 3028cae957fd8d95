#include "runtime/executor/sequence_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

// Evidence: the rows behind the last visual, at most this many.
constexpr int kMaxEvidenceRows = 64;

absl::Status Invalid(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "SEQUENCE_INVALID", "sequence: " + message);
}

absl::Status CheckTokens(const SequenceSpec& spec, const ModelConfig& config,
                         const ExecutorInfo& info) {
  const int64_t length = static_cast<int64_t>(spec.token_ids.size());
  if (length == 0) return Invalid("the prompt is empty");
  if (length + spec.sampling.max_output_tokens > info.max_context_tokens) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "PROMPT_TOO_LONG",
        absl::StrCat("prompt of ", length, " tokens and ", spec.sampling.max_output_tokens,
                     " to answer, limit ", info.max_context_tokens));
  }
  for (int32_t id : spec.token_ids) {
    if (id < 0 || id >= config.text.vocab_size) {
      return Invalid(absl::StrCat("token id ", id, ", vocabulary ", config.text.vocab_size));
    }
  }
  if (!spec.answer_ids.empty() &&
      static_cast<int64_t>(spec.answer_ids.size()) >= spec.sampling.max_output_tokens) {
    return Invalid(absl::StrCat(spec.answer_ids.size(), " tokens of an answer of at most ",
                                spec.sampling.max_output_tokens));
  }
  for (int32_t id : spec.answer_ids) {
    if (id < 0 || id >= config.text.vocab_size) {
      return Invalid(absl::StrCat("answer id ", id, ", vocabulary ", config.text.vocab_size));
    }
  }
  if (static_cast<int64_t>(spec.positions.size()) != 3 * length) {
    return Invalid(absl::StrCat(spec.positions.size(), " positions for ", length, " tokens"));
  }
  if (spec.cached_tokens < 0 || spec.cached_tokens >= length) {
    return Invalid(absl::StrCat(spec.cached_tokens, " cached tokens of ", length));
  }
  const int64_t pages =
      (length + std::max(spec.sampling.max_output_tokens, 1) - 1 + kPageTokens - 1) / kPageTokens;
  if (static_cast<int64_t>(spec.page_ids.size()) < pages) {
    return Invalid(absl::StrCat(spec.page_ids.size(), " pages, ", pages, " needed"));
  }
  for (int32_t page : spec.page_ids) {
    if (page < 0 || page >= info.num_pages) {
      return Invalid(absl::StrCat("page ", page, " of ", info.num_pages));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckVisuals(const SequenceSpec& spec) {
  for (const auto& visual : spec.visuals) {
    if (visual == nullptr) return Invalid("a visual is null");
    const PatchGrid& grid = visual->grid();
    if (grid.t <= 0 || grid.h <= 0 || grid.w <= 0 || grid.h % 2 != 0 || grid.w % 2 != 0) {
      return Invalid(absl::StrCat("grid ", grid.t, " x ", grid.h, " x ", grid.w,
                                  ", sides must be even and positive"));
    }
  }
  if (!spec.visual_keys.empty() && spec.visual_keys.size() != spec.visuals.size()) {
    return Invalid(
        absl::StrCat(spec.visual_keys.size(), " keys for ", spec.visuals.size(), " visuals"));
  }
  int64_t covered = 0;
  for (const VisionSpan& span : spec.vision_spans) {
    if (span.visual_idx < 0 || span.visual_idx >= static_cast<int>(spec.visuals.size())) {
      return Invalid(absl::StrCat("visual ", span.visual_idx, " of ", spec.visuals.size()));
    }
    const int64_t tokens = spec.visuals[static_cast<size_t>(span.visual_idx)]->grid().num_tokens();
    const int64_t end = int64_t{span.token_begin} + span.num_tokens;
    if (span.num_tokens != tokens || span.token_begin < covered ||
        end > static_cast<int64_t>(spec.token_ids.size())) {
      return Invalid(absl::StrCat("vision span [", span.token_begin, ", ", end, ") for ", tokens,
                                  " features in ", spec.token_ids.size(), " tokens"));
    }
    covered = end;
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const SamplingSettings& sampling) {
  if (!(sampling.temperature >= 0) || !(sampling.top_p > 0 && sampling.top_p <= 1) ||
      sampling.top_k < 0 || !(sampling.min_p >= 0 && sampling.min_p <= 1) ||
      !(sampling.repetition_penalty > 0)) {
    return Invalid(absl::StrCat("sampling: temperature ", sampling.temperature, ", top_p ",
                                sampling.top_p, ", top_k ", sampling.top_k, ", min_p ",
                                sampling.min_p, ", repetition_penalty ",
                                sampling.repetition_penalty));
  }
  return absl::OkStatus();
}

// The weights as shares of their sum; empty if that is 0.
std::vector<double> SharesOf(std::vector<double> weights) {
  double total = 0;
  for (double weight : weights) total += weight;
  if (!(total > 0)) return {};
  for (double& weight : weights) weight /= total;
  return weights;
}

}  // namespace

absl::Status CheckSemantics(AttentionSemantics semantics, const ModelConfig& config) {
  const auto unsupported = [&](const std::string& why) {
    return MakeError(absl::StatusCode::kInvalidArgument, "ATTENTION_UNSUPPORTED",
                     absl::StrCat("attention ", SemanticsName(semantics), ": ", why));
  };
  switch (semantics) {
    case AttentionSemantics::kDense:
      return absl::OkStatus();
    case AttentionSemantics::kCausalNsa:
    case AttentionSemantics::kReleasedNsa:
      if (!config.attention.has_gates()) return unsupported("the checkpoint has no gates");
      if (semantics == AttentionSemantics::kReleasedNsa &&
          (config.text.num_q_heads != 28 || config.text.num_kv_heads != 4)) {
        return unsupported(absl::StrCat("written for 28 query and 4 KV heads, the checkpoint has ",
                                        config.text.num_q_heads, " and ",
                                        config.text.num_kv_heads));
      }
      return absl::OkStatus();
    default:
      // Training-free patterns stand in for dense attention; gates were trained for NSA.
      if (config.attention.has_gates()) return unsupported("the checkpoint was trained with NSA");
      return absl::OkStatus();
  }
}

absl::Status CheckSequence(const SequenceSpec& spec, const ModelConfig& config,
                           const ExecutorInfo& info) {
  VNSA_RETURN_IF_ERROR(CheckTokens(spec, config, info));
  VNSA_RETURN_IF_ERROR(CheckVisuals(spec));
  VNSA_RETURN_IF_ERROR(CheckSampling(spec.sampling));
  const AttentionSettings& attention = spec.attention;
  VNSA_RETURN_IF_ERROR(CheckSemantics(attention.semantics, config));
  const bool nsa = attention.semantics == AttentionSemantics::kCausalNsa ||
                   attention.semantics == AttentionSemantics::kReleasedNsa;
  const int max_blocks = attention.semantics == AttentionSemantics::kReleasedNsa ? 32 : 1 << 20;
  if (nsa && (attention.selected_blocks < 1 || attention.selected_blocks > max_blocks ||
              attention.window_tokens < 1)) {
    return Invalid(absl::StrCat("attention: ", attention.selected_blocks, " blocks (1 to ",
                                max_blocks, "), window ", attention.window_tokens));
  }
  if (spec.cached_tokens > 0 && NeedsWholePrompt(attention.semantics)) {
    return Invalid(
        absl::StrCat(SemanticsName(attention.semantics), " cannot continue from cached tokens"));
  }
  return absl::OkStatus();
}

void SequenceState::MarkSeen(int32_t token) {
  if (seen_mask.empty() || seen_mask[static_cast<size_t>(token)]) return;
  seen_mask[static_cast<size_t>(token)] = true;
  seen.push_back(token);
}

std::unique_ptr<SequenceState> MakeSequenceState(SequenceSpec spec, const ModelConfig& config) {
  auto state = std::make_unique<SequenceState>();
  state->spec = std::move(spec);
  const SequenceSpec& own = state->spec;
  const size_t length = own.token_ids.size();
  state->prefilled = own.cached_tokens;
  state->is_vision.resize(length);
  int last_vision = -1;
  for (size_t i = 0; i < length; ++i) {
    // causal_nsa decides by token id, released_nsa by position (attention.md section 1).
    const bool by_id =
        own.token_ids[i] == config.tokens.image_pad || own.token_ids[i] == config.tokens.video_pad;
    const bool by_position = own.positions[i] != own.positions[length + i] ||
                             own.positions[i] != own.positions[2 * length + i];
    state->is_vision[i] =
        own.attention.semantics == AttentionSemantics::kReleasedNsa ? by_position : by_id;
    if (by_id) last_vision = static_cast<int>(i);
  }
  state->features.resize(own.visuals.size());
  if (own.sampling.repetition_penalty != 1) {
    state->seen_mask.assign(static_cast<size_t>(config.text.vocab_size), false);
    state->seen.reserve(length + static_cast<size_t>(own.sampling.max_output_tokens));
    for (int32_t id : own.token_ids) state->MarkSeen(id);
    for (int32_t id : own.answer_ids) state->MarkSeen(id);
  }
  state->num_sampled = static_cast<int>(own.answer_ids.size());
  if (!own.answer_ids.empty()) state->last_token = own.answer_ids.back();
  state->tallies.resize(static_cast<size_t>(config.text.num_layers));
  PrefillContext& context = state->context;
  context.semantics = own.attention.semantics;
  context.selected_blocks = own.attention.selected_blocks;
  context.window_tokens = own.attention.window_tokens;
  context.is_vision = state->is_vision.data();
  context.tallies = state->tallies.data();
  context.output_begin = static_cast<int>(length) - 1;  // the first token is sampled from it
  if (own.attention.want_evidence) {
    const int rows = static_cast<int>(length);
    context.mass_begin = std::min(rows - 1, std::max(last_vision + 1, rows - kMaxEvidenceRows));
    const size_t blocks = (length + kPageTokens - 1) / kPageTokens;
    for (AttentionTally& tally : state->tallies) {
      tally.selection_weight.assign(blocks, 0);
      tally.mass.assign(blocks, 0);
    }
  }
  return state;
}

namespace {

// Distinct blocks selected over blocks present, mean over the layers that selected any.
double SelectedCoverage(const SequenceState& state) {
  const auto last = std::find(state.is_vision.rbegin(), state.is_vision.rend(), 1);
  const auto rows = static_cast<size_t>(state.is_vision.rend() - last);
  const size_t present = (rows + kPageTokens - 1) / kPageTokens;
  double sum = 0;
  int layers = 0;
  for (const AttentionTally& tally : state.tallies) {
    const auto chosen = std::count_if(tally.selection_weight.begin(), tally.selection_weight.end(),
                                      [](double weight) { return weight > 0; });
    if (chosen == 0) continue;
    sum += std::min(1.0, static_cast<double>(chosen) / static_cast<double>(present));
    ++layers;
  }
  return layers == 0 ? -1 : sum / layers;
}

}  // namespace

AttentionAccount AccountOf(const SequenceState& state, int num_q_heads) {
  AttentionAccount account;
  account.dense_pairs = state.dense_pairs;
  account.selected_coverage = SelectedCoverage(state);
  // The sparse pairs of released_nsa stand for 56 slots of 28 heads.
  constexpr int64_t kReleasedHeads = 28;
  std::vector<double> selection, mass;
  for (const AttentionTally& tally : state.tallies) {
    BranchPairs pairs = tally.pairs;
    pairs.selected +=
        tally.selected_slot_pairs / kReleasedHeads + tally.pattern_pairs_all_heads / num_q_heads;
    account.layers.push_back(pairs);
    if (state.spec.attention.want_gates) {
      const double count = static_cast<double>(std::max<int64_t>(tally.gate_count, 1));
      account.gates.push_back(
          {tally.gate_sums[0] / count, tally.gate_sums[1] / count, tally.gate_sums[2] / count});
    }
    selection.resize(std::max(selection.size(), tally.selection_weight.size()), 0);
    mass.resize(std::max(mass.size(), tally.mass.size()), 0);
    for (size_t i = 0; i < tally.selection_weight.size(); ++i) {
      selection[i] += tally.selection_weight[i];
    }
    for (size_t i = 0; i < tally.mass.size(); ++i) mass[i] += tally.mass[i];
  }
  // What the question's rows looked at. Vision rows select before the question is read, so what
  // they chose says little about it and counts only where no row behind them has run.
  account.block_share = SharesOf(std::move(mass));
  if (account.block_share.empty()) account.block_share = SharesOf(std::move(selection));
  return account;
}

}  // namespace videonsa
