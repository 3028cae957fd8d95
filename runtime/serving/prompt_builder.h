#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/api/generate_request.h"
#include "runtime/engine/request.h"
#include "runtime/media/media_loader.h"
#include "runtime/serving/settings.h"
#include "runtime/serving/tenant_salts.h"
#include "runtime/step/executor.h"
#include "runtime/text/prompt_layout.h"
#include "runtime/text/tokenizer.h"

namespace videonsa {

/// A visual of a question, in prompt order.
struct PromptVisual {
  LoadedVisual visual;  ///< shape and report; patches unless there is another source
  Sha256Digest key{};
  /// Where the patches come from; null: visual.patches, and without them the prompt can be priced,
  /// not run.
  std::shared_ptr<PatchSource> source = nullptr;
};

/// Turns a question whose visuals are known into a prompt for the engine. Constant after creation.
///
/// Threads: any. Lifetime: the tokenizer outlives it.
class PromptBuilder {
 public:
  struct Setup {
    ExecutorInfo info;
    ChatTokens chat;
    GenerationDefaults generation;
    /// What must be equal for pages to be shared, beside the prompt: weights and arithmetic.
    std::string model_salt;
  };
  PromptBuilder(const Tokenizer& tokenizer, Setup setup, TenantSalts salts)
      : tokenizer_(tokenizer), setup_(std::move(setup)), salts_(std::move(salts)) {}

  /// Lays out, resolves every setting and fills the seed of the result but for its times.
  ///
  /// Requires: one visual for each video and image part, in order.
  /// Errors: INVALID_ARGUMENT as LayOutPrompt, ResolveGeneration and ResolveAttention.
  absl::StatusOr<std::unique_ptr<PreparedPrompt>> Build(const GenerateRequest& request,
                                                        std::vector<PromptVisual> visuals,
                                                        uint64_t random_seed) const;

  const ExecutorInfo& info() const { return setup_.info; }

 private:
  absl::StatusOr<PromptLayout> LayOut(const GenerateRequest& request,
                                      const std::vector<PromptVisual>& visuals) const;

  const Tokenizer& tokenizer_;
  const Setup setup_;
  const TenantSalts salts_;
};

/// Number of video and image parts of a question.
int CountVisuals(const GenerateRequest& request);

}  // namespace videonsa
