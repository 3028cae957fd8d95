#include "tests/support/engine_fixtures.h"

#include <random>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/engine/prefix_keys.h"

namespace videonsa {
namespace {

// What follows from the tokens.
void Complete(const PromptShape& shape, PreparedPrompt& prompt) {
  const SequenceSpec& spec = prompt.spec;
  prompt.page_salt = shape.tenant;
  prompt.page_keys = PrefixKeys(spec, prompt.page_salt);
  prompt.forecast = ForecastPairs(VisionRows(spec), spec.attention);
  prompt.prompt_tokens.vision = shape.frames * 4;
  prompt.prompt_tokens.text = static_cast<int64_t>(spec.token_ids.size()) - shape.frames * 4;
}

}  // namespace

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
    spec.visuals.push_back(shape.source != nullptr ? shape.source : WholePatches(patches));
    prompt->reopen = shape.reopen;
    if (shape.source == nullptr) {
      prompt->reopen = [patches] {
        return std::vector<std::shared_ptr<PatchSource>>{WholePatches(patches)};
      };
    }
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
  Complete(shape, *prompt);
  return prompt;
}

std::unique_ptr<PreparedPrompt> ContinuePrompt(const PromptShape& shape,
                                               const std::vector<int32_t>& tokens) {
  std::unique_ptr<PreparedPrompt> prompt = MakePrompt(shape);
  SequenceSpec& spec = prompt->spec;
  const size_t before = spec.token_ids.size();
  spec.token_ids.insert(spec.token_ids.end(), tokens.begin(), tokens.end());
  const std::vector<int32_t> old = std::exchange(spec.positions, {});
  for (size_t axis = 0; axis < 3; ++axis) {
    spec.positions.insert(spec.positions.end(), old.begin() + axis * before,
                          old.begin() + (axis + 1) * before);
    for (size_t i = 0; i < tokens.size(); ++i) {
      spec.positions.push_back(spec.next_position + static_cast<int32_t>(i));
    }
  }
  spec.next_position += static_cast<int32_t>(tokens.size());
  Complete(shape, *prompt);
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
