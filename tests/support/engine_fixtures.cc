#include "tests/support/engine_fixtures.h"

#include <random>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/engine/prefix_keys.h"

namespace videonsa {

std::unique_ptr<PreparedPrompt> MakePrompt(const PromptShape& shape) {
  auto prompt = std::make_unique<PreparedPrompt>();
  SequenceSpec& spec = prompt->spec;
  std::mt19937_64 own(shape.seed), prefix(shape.prefix_seed);
  const auto text = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const bool shared = static_cast<int>(spec.token_ids.size()) < shape.prefix_tokens;
      spec.token_ids.push_back(static_cast<int32_t>((shared ? prefix() : own()) % 900));
    }
  };
  text(shape.text_before);
  if (shape.frames > 0) {
    auto patches = std::make_shared<PatchBatch>();
    patches->grid = {shape.frames, 4, 4};
    VisionSpan span;
    span.token_begin = static_cast<int>(spec.token_ids.size());
    span.num_tokens = static_cast<int>(patches->grid.num_tokens());
    spec.vision_spans.push_back(span);
    patches->rows.resize(static_cast<size_t>(patches->grid.num_patches()) * kPatchDim);
    spec.visuals.push_back(shape.source != nullptr ? shape.source
                                                   : WholePatches(std::move(patches)));
    const uint64_t content = shape.prefix_tokens > 0 ? shape.prefix_seed : shape.seed;
    spec.visual_keys.push_back(Sha256Of("clip" + std::to_string(content)));
    spec.token_ids.insert(spec.token_ids.end(), span.num_tokens, 999);
  }
  text(shape.text_after);
  const int length = static_cast<int>(spec.token_ids.size());
  for (int axis = 0; axis < 3; ++axis) {
    for (int i = 0; i < length; ++i) spec.positions.push_back(i);
  }
  spec.next_position = length;
  spec.sampling.max_output_tokens = shape.max_output_tokens;
  spec.sampling.suppress_eos = shape.ignore_eos;
  spec.attention.semantics = shape.semantics;
  if (shape.semantics != AttentionSemantics::kDense) {
    spec.attention.selected_blocks = 4;
    spec.attention.window_tokens = 64;
  }
  prompt->page_keys = PrefixKeys(spec, shape.tenant);
  prompt->forecast = ForecastPairs(VisionRows(spec), spec.attention);
  prompt->prompt_tokens.vision = shape.frames * 4;
  prompt->prompt_tokens.text = length - shape.frames * 4;
  return prompt;
}

void RecordingStream::Accepted(RequestId, int) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(!accepted_ && !finished_);
  accepted_ = true;
}

void RecordingStream::Progress(const char*, int64_t done, int64_t total) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(accepted_ && !prefilled_ && !finished_);
  VNSA_CHECK(done >= 0 && done <= total);
}

void RecordingStream::Prefilled(const PromptTokens&, int64_t cached_tokens, absl::Duration took) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(accepted_ && !prefilled_ && !finished_);
  VNSA_CHECK(took >= absl::ZeroDuration());
  prefilled_ = true;
  cached_tokens_ = cached_tokens;
}

void RecordingStream::Token(const SampledToken& token) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(prefilled_ && !finished_);
  tokens_.push_back(token.token_id);
}

void RecordingStream::Finish(const absl::Status& status, GenerateResult result) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(accepted_ && !finished_) << "finish without accept, or twice";
  finished_ = true;
  ++finishes_;
  status_ = status;
  result_ = std::move(result);
}

void RecordingStream::AwaitFinish() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&finished_));
}

bool RecordingStream::finished() const {
  absl::MutexLock lock(&mutex_);
  return finished_;
}
int RecordingStream::num_finishes() const {
  absl::MutexLock lock(&mutex_);
  return finishes_;
}
std::vector<int32_t> RecordingStream::tokens() const {
  absl::MutexLock lock(&mutex_);
  return tokens_;
}
int64_t RecordingStream::cached_tokens() const {
  absl::MutexLock lock(&mutex_);
  return cached_tokens_;
}
absl::Status RecordingStream::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}
GenerateResult RecordingStream::result() const {
  absl::MutexLock lock(&mutex_);
  return result_;
}

}  // namespace videonsa
