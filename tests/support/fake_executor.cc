#include "tests/support/fake_executor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

// splitmix64 finaliser.
uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a ^ (b + 0x9E3779B97F4A7C15u + (a << 6) + (a >> 2));
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t Head(const Sha256Digest& digest) {
  uint64_t value;
  std::memcpy(&value, digest.data(), sizeof(value));
  return value;
}

bool IsLayerwise(const SequenceSpec& spec) {
  return spec.attention.semantics == AttentionSemantics::kReleasedNsa;
}

// What a row holds of its token.
uint64_t TokenRow(int32_t token, std::array<int32_t, 3> position) {
  uint64_t content = Mix(static_cast<uint32_t>(token), 1);
  for (const int32_t axis : position) content = Mix(content, static_cast<uint32_t>(axis));
  return content;
}

// What the row of answer token `fed` holds: the same as one of a prompt that goes on with it.
uint64_t AnswerRow(const SequenceSpec& spec, int32_t token, int fed) {
  const int32_t at = spec.next_position + fed;
  return TokenRow(token, {at, at, at});
}

// What row `row` of the prompt holds by itself.
uint64_t PromptRow(const SequenceSpec& spec, int row) {
  const size_t length = spec.token_ids.size();
  uint64_t content = TokenRow(
      spec.token_ids[row],
      {spec.positions[row], spec.positions[length + row], spec.positions[2 * length + row]});
  for (const VisionSpan& span : spec.vision_spans) {
    if (row < span.token_begin || row >= span.token_begin + span.num_tokens) continue;
    content = Mix(content, static_cast<uint64_t>(row - span.token_begin));
    if (!spec.visual_keys.empty()) content = Mix(content, Head(spec.visual_keys[span.visual_idx]));
  }
  return content;
}

// The chain's start: rows of layer-wise semantics depend on the whole prompt.
uint64_t ChainStart(const SequenceSpec& spec) {
  uint64_t start = Mix(static_cast<uint64_t>(spec.attention.semantics),
                       static_cast<uint64_t>(spec.attention.selected_blocks));
  if (IsLayerwise(spec)) {
    for (const int32_t token : spec.token_ids) start = Mix(start, static_cast<uint32_t>(token));
  }
  return start;
}

int32_t TokenOf(uint64_t chain, const SequenceSpec& spec, int vocab) {
  return static_cast<int32_t>(Mix(chain, spec.sampling.seed) % static_cast<uint64_t>(vocab));
}

}  // namespace

ExecutorInfo SmallExecutorInfo() {
  ExecutorInfo info;
  info.num_layers = 4;
  info.num_q_heads = 4;
  info.num_kv_heads = 2;
  info.head_dim = 16;
  info.hidden_size = 64;
  info.vocab_size = 1000;
  info.max_context_tokens = 4096;
  info.num_pages = 64;
  info.page_bytes = 1024;
  info.hidden_row_bytes = 256;
  return info;
}

FakeExecutor::FakeExecutor(FakeExecutorOptions options) : options_(std::move(options)) {
  rows_.assign(static_cast<size_t>(options_.info.num_pages) * kPageTokens, 0xDEAD);
}

absl::Status FakeExecutor::AddSequence(SequenceSpec spec) {
  const SequenceId id = spec.id;
  VNSA_CHECK(!sequences_.contains(id)) << "sequence " << id << " added twice";
  VNSA_CHECK_LE(spec.token_ids.size() + spec.sampling.max_output_tokens,
                spec.page_ids.size() * kPageTokens);
  VNSA_CHECK_LT(static_cast<size_t>(spec.cached_tokens), spec.token_ids.size());
  VNSA_CHECK(spec.cached_tokens == 0 || !IsLayerwise(spec));
  if (options_.refuse && options_.refuse(spec)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FIELD_INVALID", "refused by the fake");
  }
  State state;
  state.tokens_done = spec.cached_tokens;
  state.visual_t_done.assign(spec.visuals.size(), 0);
  for (const auto& visual : spec.visuals) visual->Begin();
  VNSA_CHECK(spec.answer_ids.empty() ||
             static_cast<int>(spec.answer_ids.size()) < spec.sampling.max_output_tokens);
  state.outputs = static_cast<int>(spec.answer_ids.size());
  if (state.outputs > 0) state.last_token = spec.answer_ids.back();
  state.spec = std::move(spec);
  sequences_.emplace(id, std::move(state));
  ++num_sequences_;
  return absl::OkStatus();
}

FakeExecutor::State& FakeExecutor::At(SequenceId id) {
  const auto it = sequences_.find(id);
  VNSA_CHECK(it != sequences_.end()) << "plan names unknown sequence " << id;
  return it->second;
}

bool FakeExecutor::Skipped(State& state, StepResult& result) const {
  if (!state.spec.cancelled->load(std::memory_order_acquire)) return false;
  result.skipped.push_back(state.spec.id);
  return true;
}

void FakeExecutor::RunVision(const VisionSlice& slice) {
  State& state = At(slice.sequence);
  if (state.spec.cancelled->load(std::memory_order_acquire)) return;
  int& done = state.visual_t_done[slice.visual_idx];
  VNSA_CHECK_EQ(done, slice.t_begin) << "vision out of order";
  VNSA_CHECK_LT(slice.t_begin, slice.t_end);
  VNSA_CHECK_LE(slice.t_end, state.spec.visuals[slice.visual_idx]->grid().t);
  while (done < slice.t_end) {
    const PatchRows rows = state.spec.visuals[slice.visual_idx]->Take(done, slice.t_end);
    if (rows.empty()) return;  // closed: the sequence has ended
    VNSA_CHECK(rows.t_begin == done && rows.t_end <= slice.t_end);
    done = rows.t_end;
  }
}

void FakeExecutor::WriteRow(State& state, int row, uint64_t content) {
  const auto at = [&](int r) -> uint64_t& {
    return rows_[static_cast<size_t>(state.spec.page_ids[r / kPageTokens]) * kPageTokens +
                 r % kPageTokens];
  };
  at(row) = Mix(row == 0 ? ChainStart(state.spec) : at(row - 1), content);
  ++state.rows_run;
}

void FakeExecutor::RunPrefill(const PrefillSlice& slice, StepResult& result) {
  State& state = At(slice.sequence);
  if (Skipped(state, result)) return;
  const SequenceSpec& spec = state.spec;
  const int length = static_cast<int>(spec.token_ids.size());
  const int layers = options_.info.num_layers;
  for (const VisionSpan& span : spec.vision_spans) {
    if (span.token_begin + span.num_tokens <= spec.cached_tokens) continue;
    VNSA_CHECK_EQ(state.visual_t_done[span.visual_idx], spec.visuals[span.visual_idx]->grid().t)
        << "prefill before vision";
  }
  VNSA_CHECK(slice.token_begin < slice.token_end && slice.token_end <= length);
  VNSA_CHECK_EQ(state.layers_done, slice.layer_begin) << "layers out of order";
  if (IsLayerwise(spec)) {
    VNSA_CHECK(slice.token_begin == 0 && slice.token_end == length);
  } else {
    VNSA_CHECK(slice.layer_begin == 0 && slice.layer_end == layers);
    VNSA_CHECK_EQ(state.tokens_done, slice.token_begin) << "tokens out of order";
  }
  if (slice.layer_end < layers) {
    state.layers_done = slice.layer_end;
    return;
  }
  for (int row = slice.token_begin; row < slice.token_end; ++row) {
    WriteRow(state, row, PromptRow(spec, row));
  }
  state.tokens_done = slice.token_end;
  if (state.tokens_done == length) {
    state.layers_done = layers;
    if (spec.answer_ids.empty()) Sample(state, result);
  }
}

void FakeExecutor::RunReplay(const ReplaySlice& slice, StepResult& result) {
  State& state = At(slice.sequence);
  if (Skipped(state, result)) return;
  const SequenceSpec& spec = state.spec;
  const int length = static_cast<int>(spec.token_ids.size());
  VNSA_CHECK(state.tokens_done == length && state.layers_done == options_.info.num_layers)
      << "the answer before its prompt";
  VNSA_CHECK_EQ(slice.begin, state.replayed) << "replay out of order";
  VNSA_CHECK(slice.begin < slice.end && slice.end < static_cast<int>(spec.answer_ids.size()));
  for (int fed = slice.begin; fed < slice.end; ++fed) {
    WriteRow(state, length + fed, AnswerRow(spec, spec.answer_ids[fed], fed));
  }
  state.replayed = slice.end;
}

void FakeExecutor::Sample(State& state, StepResult& result) {
  const SequenceSpec& spec = state.spec;
  const int row = static_cast<int>(spec.token_ids.size()) + state.outputs - 1;
  VNSA_CHECK_LT(state.outputs, spec.sampling.max_output_tokens) << "more tokens than reserved";
  // Read every row, not only the last: a page overwritten by another sequence must show.
  uint64_t chain = 0;
  for (int r = 0; r <= row; ++r) {
    chain = Mix(
        chain,
        rows_[static_cast<size_t>(spec.page_ids[r / kPageTokens]) * kPageTokens + r % kPageTokens]);
  }
  state.last_token = TokenOf(chain, spec, options_.info.vocab_size);
  ++state.outputs;
  SampledToken token;
  token.sequence = spec.id;
  token.token_id = state.last_token;
  token.is_stop_token = IsStopToken(state.last_token) && !spec.sampling.suppress_eos;
  result.tokens.push_back(token);
}

absl::StatusOr<StepResult> FakeExecutor::Run(const StepPlan& plan) {
  if (options_.on_run) options_.on_run(plan);
  const int run = ++num_runs_;
  if (options_.fail_at_run > 0 && run >= options_.fail_at_run) {
    return absl::UnavailableError("the fake device is gone");
  }
  StepResult result;
  result.step = plan.step;
  for (const VisionSlice& slice : plan.vision) {
    RunVision(slice);
    const PatchGrid& grid = At(slice.sequence).spec.visuals[slice.visual_idx]->grid();
    result.vision_time +=
        absl::Microseconds(int64_t{grid.h} * grid.w * (slice.t_end - slice.t_begin));
  }
  for (const PrefillSlice& slice : plan.prefill) {
    RunPrefill(slice, result);
    const int64_t work =
        int64_t{slice.token_end - slice.token_begin} * (slice.layer_end - slice.layer_begin);
    result.prefill_time += absl::Microseconds(10 * work / options_.info.num_layers);
  }
  for (const SequenceId id : plan.decode) {
    State& state = At(id);
    if (Skipped(state, result)) continue;
    VNSA_CHECK(state.outputs > 0 && state.layers_done == options_.info.num_layers)
        << "decode before prefill";
    VNSA_CHECK(state.spec.answer_ids.empty() ||
               state.replayed + 1 == static_cast<int>(state.spec.answer_ids.size()))
        << "decode before the answer so far";
    const int row = static_cast<int>(state.spec.token_ids.size()) + state.outputs - 1;
    WriteRow(state, row, AnswerRow(state.spec, state.last_token, state.outputs - 1));
    Sample(state, result);
    result.decode_time += absl::Microseconds(50);
  }
  for (const ReplaySlice& slice : plan.replay) {
    RunReplay(slice, result);
    result.decode_time += absl::Microseconds(10 * (slice.end - slice.begin));
  }
  if (options_.clock != nullptr) {
    options_.clock->Advance(result.vision_time + result.prefill_time + result.decode_time);
  }
  return result;
}

AttentionAccount FakeExecutor::Account(SequenceId sequence) const {
  const auto it = sequences_.find(sequence);
  VNSA_CHECK(it != sequences_.end()) << "account of unknown sequence " << sequence;
  AttentionAccount account;
  account.layers.resize(1);
  account.layers[0].dense = it->second.rows_run;
  account.dense_pairs = it->second.rows_run;
  return account;
}

void FakeExecutor::ReleaseSequence(SequenceId sequence) {
  VNSA_CHECK_EQ(sequences_.erase(sequence), 1u) << "released twice: " << sequence;
  --num_sequences_;
}

std::vector<int32_t> FakeExecutor::AnswerAlone(const SequenceSpec& spec, const ExecutorInfo& info) {
  std::vector<uint64_t> rows;
  uint64_t chain = ChainStart(spec);
  for (int row = 0; row < static_cast<int>(spec.token_ids.size()); ++row) {
    chain = Mix(chain, PromptRow(spec, row));
    rows.push_back(chain);
  }
  std::vector<int32_t> answer;
  uint64_t fold = 0;
  for (const uint64_t row : rows) fold = Mix(fold, row);
  while (static_cast<int>(answer.size()) < spec.sampling.max_output_tokens) {
    const int32_t token = TokenOf(fold, spec, info.vocab_size);
    answer.push_back(token);
    if (IsStopToken(token) && !spec.sampling.suppress_eos) break;
    chain = Mix(chain, AnswerRow(spec, token, static_cast<int>(answer.size()) - 1));
    fold = Mix(fold, chain);
  }
  return answer;
}

}  // namespace videonsa
