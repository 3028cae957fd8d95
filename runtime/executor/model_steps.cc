// What one slice of a step does.
#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/executor/model_executor.h"

namespace videonsa {

bool ModelExecutor::RunVision(const VisionSlice& slice, StepResult& result) {
  SequenceState& state = Find(slice.sequence);
  if (state.cancelled()) return false;
  const size_t index = static_cast<size_t>(slice.visual_idx);
  VNSA_CHECK_LT(index, state.features.size());
  std::shared_ptr<VisualFeatures>& features = state.features[index];
  const bool keyed = !state.spec.visual_keys.empty();
  if (keyed && features->frames_done == 0) {
    // Another sequence may have finished the same visual since this one was added.
    auto finished = feature_cache_->Find(state.spec.visual_keys[index], features->grid);
    if (finished != nullptr) features = std::move(finished);
  }
  PatchSource& source = *state.spec.visuals[index];
  if (features->complete()) {
    source.Close();
    result.reused_vision.push_back(slice);
    return true;
  }
  const PatchGrid& grid = features->grid;
  VNSA_CHECK_EQ(slice.t_begin, features->frames_done) << "vision slices out of order";
  VNSA_CHECK(slice.t_end > slice.t_begin && slice.t_end <= grid.t)
      << slice.t_begin << " to " << slice.t_end << " of " << grid.t;
  const int64_t frame_patches = int64_t{grid.h} * grid.w;
  while (features->frames_done < slice.t_end) {
    const PatchRows patches = source.Take(features->frames_done, slice.t_end);
    if (patches.empty()) return false;  // closed because the sequence has ended
    const VisionInput input{patches.t_end - patches.t_begin, grid.h, grid.w, patches.rows};
    const TensorView rows =
        features->rows.Rows(patches.t_begin * frame_patches / 4, input.t * frame_patches / 4);
    if (!Encode(input, rows, state.spec.cancelled.get())) return false;
    features->frames_done = patches.t_end;
  }
  if (features->complete()) {
    source.Close();
    if (keyed) feature_cache_->Add(state.spec.visual_keys[index], features);
  }
  return true;
}

// Temporal patches do not see each other: ranks encode some each and exchange the features, far
// less than what a tower divided by heads would exchange in every block.
bool ModelExecutor::Encode(const VisionInput& input, const TensorView& rows,
                           const std::atomic<bool>* cancelled) {
  const ModelShard& shard = model_->shard();
  const RankShare own = shard.Part(input.t);
  const int64_t tokens = input.rows_per_frame() / 4;
  VisionInput part = input;
  part.t = static_cast<int>(own.size());
  part.patches += own.begin * input.rows_per_frame() * kPatchDim;
  if (!model_->vision().Run(part, rows.Rows(own.begin * tokens, own.size() * tokens), cancelled)) {
    return false;
  }
  if (shard.divided()) shard.collective->AllGather(rows, input.t);
  return true;
}

void ModelExecutor::EmbedPrompt(SequenceState& state, int begin, int end,
                                const TensorView& hidden) {
  model_->language().Embed(
      absl::MakeConstSpan(state.spec.token_ids)
          .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
      hidden);
  for (const VisionSpan& span : state.spec.vision_spans) {
    const int first = std::max(begin, span.token_begin);
    const int last = std::min(end, span.token_begin + span.num_tokens);
    if (first >= last) continue;
    const auto& features = state.features[static_cast<size_t>(span.visual_idx)];
    VNSA_CHECK(features != nullptr && features->complete()) << "features before their prefill";
    backend_->CopyRows(features->rows.Rows(first - span.token_begin, last - first), {},
                       hidden.Rows(first - begin, last - first));
  }
  if (state.context.observer != nullptr) state.context.observer->OnEmbeddings(begin, hidden);
}

void ModelExecutor::PromptAngles(SequenceState& state, int begin, const RopeTable& table) {
  const int32_t* base = state.spec.positions.data();
  const int64_t length = state.prompt_length();
  const int32_t* const axes[3] = {base + begin, base + length + begin, base + 2 * length + begin};
  model_->language().RopeAngles(axes, table);
}

void ModelExecutor::DropUsedFeatures(SequenceState& state, int end) {
  for (const VisionSpan& span : state.spec.vision_spans) {
    if (span.token_begin + span.num_tokens <= end && state.context.observer == nullptr) {
      state.features[static_cast<size_t>(span.visual_idx)] = nullptr;
    }
  }
}

bool ModelExecutor::PrefillChunk(SequenceState& state, int begin, int end) {
  const int rows = end - begin;
  const TensorView hidden = hidden_.Rows(0, rows);
  const RopeTable table = {angles_.cos.Rows(0, rows), angles_.sin.Rows(0, rows)};
  EmbedPrompt(state, begin, end, hidden);
  PromptAngles(state, begin, table);
  for (int layer = 0; layer < info_.num_layers; ++layer) {
    if (state.cancelled()) return false;
    model_->language().PrefillLayer(layer, begin, hidden, table, LayerPages(layer), state.context);
  }
  for (int64_t row = begin; row < end; ++row) state.dense_pairs += (row + 1) * info_.num_layers;
  state.prefilled = end;
  DropUsedFeatures(state, end);
  return true;
}

bool ModelExecutor::PrefillWhole(SequenceState& state, int layer_begin, int layer_end) {
  LanguageModel::WholePrompt& views = state.whole->views;
  const int64_t rows = state.prompt_length();
  VNSA_CHECK_EQ(layer_begin, state.whole->next_layer) << "layer slices out of order";
  if (layer_begin == 0) {
    EmbedPrompt(state, 0, static_cast<int>(rows), views.hidden);
    PromptAngles(state, 0, views.table);
    DropUsedFeatures(state, static_cast<int>(rows));
  }
  for (int layer = layer_begin; layer < layer_end; ++layer) {
    if (state.cancelled()) return false;
    model_->language().PrefillLayerWhole(layer, views, LayerPages(layer), state.context);
    state.dense_pairs += rows * (rows + 1) / 2;
    state.whole->next_layer = layer + 1;
  }
  return true;
}

void ModelExecutor::UploadPrompt(SequenceState& state) {
  uploaded_pages_ = backend_->Upload(absl::MakeConstSpan(state.spec.page_ids));
  state.context.is_vision_uploaded = backend_->Upload(absl::MakeConstSpan(state.is_vision));
}

bool ModelExecutor::RunPrefill(const PrefillSlice& slice) {
  SequenceState& state = Find(slice.sequence);
  if (state.cancelled()) return false;
  UploadPrompt(state);
  const int length = state.prompt_length();
  TensorView last_row;
  if (state.whole != nullptr) {
    VNSA_CHECK(slice.token_begin == 0 && slice.token_end == length)
        << "this attention takes whole prompts, not " << slice.token_begin << " to "
        << slice.token_end;
    if (!PrefillWhole(state, slice.layer_begin, slice.layer_end)) return false;
    if (slice.layer_end < info_.num_layers) return true;
    state.prefilled = length;
    last_row = hidden_.Rows(0, 1);
    backend_->CopyRows(state.whole->views.hidden.Rows(length - 1, 1), {}, last_row);
    if (state.context.observer == nullptr) state.whole = nullptr;
  } else {
    VNSA_CHECK(slice.layer_begin == 0 && slice.layer_end == info_.num_layers)
        << "layers " << slice.layer_begin << " to " << slice.layer_end;
    VNSA_CHECK_EQ(slice.token_begin, state.prefilled) << "prefill slices out of order";
    VNSA_CHECK(slice.token_end > slice.token_begin && slice.token_end <= length)
        << slice.token_end << " of " << length;
    int begin = slice.token_begin;
    int rows = 0;
    for (; begin < slice.token_end; begin += rows) {
      rows = std::min(max_rows_, slice.token_end - begin);
      if (!PrefillChunk(state, begin, begin + rows)) return false;
    }
    if (slice.token_end < length) return true;
    last_row = hidden_.Rows(rows - 1, 1);
  }
  // Of an answer that goes on the next token follows from its own last one.
  if (state.spec.answer_ids.empty()) Sample(last_row, {&state});
  return true;
}

void ModelExecutor::RunDecode(const StepPlan& plan, StepResult& result) {
  std::vector<AnswerRow> rows;
  for (SequenceId id : plan.decode) {
    SequenceState& state = Find(id);
    if (state.cancelled()) {
      result.skipped.push_back(id);
      continue;
    }
    VNSA_CHECK(state.num_sampled > 0 && state.prefilled == state.prompt_length())
        << "decode before the prompt is prefilled";
    VNSA_CHECK_EQ(state.replayed, state.rows_to_replay()) << "decode before the answer so far";
    rows.push_back({&state, state.num_sampled - 1, false});
  }
  for (const ReplaySlice& slice : plan.replay) AddReplay(slice, rows, result);
  const size_t most = static_cast<size_t>(decode_rows_);
  for (size_t begin = 0; begin < rows.size(); begin += most) {
    DecodeBatch(absl::MakeConstSpan(rows).subspan(begin, most));
  }
}

void ModelExecutor::AddReplay(const ReplaySlice& slice, std::vector<AnswerRow>& rows,
                              StepResult& result) {
  SequenceState& state = Find(slice.sequence);
  if (state.cancelled()) {
    result.skipped.push_back(slice.sequence);
    return;
  }
  VNSA_CHECK_EQ(state.prefilled, state.prompt_length()) << "the answer before its prompt";
  VNSA_CHECK(slice.begin == state.replayed && slice.begin < slice.end &&
             slice.end <= state.rows_to_replay())
      << "replay of " << slice.begin << " to " << slice.end << " after " << state.replayed << " of "
      << state.rows_to_replay();
  for (int fed = slice.begin; fed < slice.end; ++fed) rows.push_back({&state, fed, true});
  state.replayed = slice.end;
}

void ModelExecutor::DecodeBatch(absl::Span<const AnswerRow> batch) {
  const int64_t rows = static_cast<int64_t>(batch.size());
  ids_.clear();
  positions_.clear();
  kv_lens_.clear();
  page_tables_.clear();
  std::vector<SequenceState*> sampled;
  for (const AnswerRow& row : batch) {
    const SequenceState& state = *row.state;
    const int kv_len = state.prompt_length() + row.fed + 1;
    VNSA_CHECK_LE(kv_len, static_cast<int>(state.spec.page_ids.size()) * kPageTokens)
        << "no page for the next token";
    ids_.push_back(row.replayed ? state.spec.answer_ids[static_cast<size_t>(row.fed)]
                                : state.last_token);
    positions_.push_back(state.spec.next_position + row.fed);
    kv_lens_.push_back(kv_len);
    page_tables_.push_back(state.spec.page_ids.data());
    if (!row.replayed) sampled.push_back(row.state);
  }
  const TensorView hidden = hidden_.Rows(0, rows);
  const RopeTable table = {angles_.cos.Rows(0, rows), angles_.sin.Rows(0, rows)};
  model_->language().Embed(ids_, hidden);
  const int32_t* const axes[3] = {positions_.data(), positions_.data(), positions_.data()};
  model_->language().RopeAngles(axes, table);
  backend_->BeginDecode({page_tables_.data(), kv_lens_.data(), static_cast<int>(rows)});
  LanguageModel& language = model_->language();
  backend_->RunDecode(
      {hidden.data, table.cos.data, language.workspace(), kv_->Layer(0, nullptr).k_pages}, [&] {
        for (int layer = 0; layer < info_.num_layers; ++layer) {
          language.DecodeLayer(layer, hidden, table, kv_->Layer(layer, nullptr));
        }
      });
  for (size_t i = 0; i < batch.size(); ++i) {
    SequenceState& state = *batch[i].state;
    for (AttentionTally& tally : state.tallies) tally.pairs.dense += kv_lens_[i];
    state.dense_pairs += int64_t{kv_lens_[i]} * info_.num_layers;
  }
  // Rows that are replayed come last.
  if (!sampled.empty()) Sample(hidden.Rows(0, static_cast<int64_t>(sampled.size())), sampled);
}

void ModelExecutor::Sample(const TensorView& hidden, const std::vector<SequenceState*>& sequences) {
  for (int64_t begin = 0; begin < hidden.rows(); begin += logits_.rows()) {
    const int64_t rows = std::min(logits_.rows(), hidden.rows() - begin);
    const TensorView logits = logits_.Rows(0, rows);
    model_->language().Logits(hidden.Rows(begin, rows), logits);
    tasks_.clear();
    for (int64_t row = 0; row < rows; ++row) {
      SequenceState& state = *sequences[static_cast<size_t>(begin + row)];
      if (state.context.observer != nullptr) {
        state.context.observer->OnLogits(state.num_sampled, logits.Rows(row, 1));
      }
      pending_.push_back({&state, sampler_->TaskOf(state)});
      tasks_.push_back(&pending_.back().task);
    }
    backend_->Sample(logits, tasks_);
  }
}

void ModelExecutor::TakeTokens(StepResult& result) {
  for (Pending& pending : pending_) {
    SequenceState& state = *pending.sequence;
    SampledToken token = sampler_->TokenOf(state, pending.task);
    state.last_token = token.token_id;
    state.MarkSeen(token.token_id);
    ++state.num_sampled;
    result.tokens.push_back(std::move(token));
  }
}

}  // namespace videonsa
