#include "runtime/executor/tensor_parallel_executor.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/executor/shared_patches.h"
#include "runtime/model/config.h"

namespace videonsa {
namespace {

// What every rank has; bytes of all of them.
ExecutorInfo Together(const std::vector<std::unique_ptr<Executor>>& ranks) {
  ExecutorInfo info = CommonInfo(ranks);
  for (size_t i = 1; i < ranks.size(); ++i) {
    const ExecutorInfo& own = ranks[i]->info();
    info.page_bytes += own.page_bytes;
    info.hidden_row_bytes += own.hidden_row_bytes;
    info.feature_row_bytes += own.feature_row_bytes;
    info.scratch_row_bytes += own.scratch_row_bytes;
  }
  return info;
}

// Adds `from`'s numbers to `to`, which count alike.
void AddTo(std::vector<double>& to, const std::vector<double>& from) {
  to.resize(std::max(to.size(), from.size()), 0);
  for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

absl::Status NotDivided(int ranks, const std::string& why) {
  return InvalidField("tensor_parallel", absl::StrCat("tensor_parallel ", ranks, ": ", why));
}

// Whether heads are divided, or why the model cannot be.
absl::StatusOr<bool> DividesHeads(const ExecutorOptions& options) {
  const int ranks = options.tensor_parallel;
  VNSA_ASSIGN_OR_RETURN(const ModelConfig config,
                        options.dummy_config_path.empty()
                            ? LoadModelConfig(options.model_dir)
                            : LoadModelConfigFile(options.dummy_config_path));
  const TextConfig& text = config.text;
  if (text.intermediate_size < ranks || text.vocab_size < ranks) {
    return NotDivided(ranks, absl::StrCat("the model has ", text.intermediate_size,
                                          " columns of the MLP and ", text.vocab_size, " tokens"));
  }
  if (options.attention.value_or(config.attention.semantics) == AttentionSemantics::kReleasedNsa) {
    return false;
  }
  if (text.num_kv_heads % ranks != 0) {
    return NotDivided(
        ranks, absl::StrCat("does not divide the ", text.num_kv_heads, " KV heads of the model (",
                            text.num_q_heads, " query heads)"));
  }
  return true;
}

absl::StatusOr<std::unique_ptr<CollectiveGroup>> MakeGroup(const ExecutorOptions& options) {
  if (options.device == DeviceKind::kCpu) return CreateThreadCollectives(options.tensor_parallel);
  if (static_cast<int>(options.rank_ordinals.size()) != options.tensor_parallel) {
    return NotDivided(
        options.tensor_parallel,
        absl::StrCat("needs as many GPUs, ", options.rank_ordinals.size(), " are given"));
  }
  for (int ordinal : options.rank_ordinals) VNSA_RETURN_IF_ERROR(CheckGpu(ordinal));
  return CreateNcclCollectives(options.rank_ordinals);
}

// What of threads, memory and GPUs is rank `rank`'s.
ExecutorOptions OptionsOf(const ExecutorOptions& options, int rank) {
  ExecutorOptions own = options;
  if (options.device == DeviceKind::kCuda) {
    own.device_ordinal = options.rank_ordinals[static_cast<size_t>(rank)];
  }
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = options.threads == 0 ? cores : options.threads;
  own.threads =
      std::max<int>(1, static_cast<int>(ShareOf(threads, rank, options.tensor_parallel).size()));
  own.kv_bytes /= options.tensor_parallel;
  return own;
}

}  // namespace

absl::StatusOr<ModelRanks> OpenRanks(const ExecutorOptions& options) {
  const int num_ranks = options.tensor_parallel;
  if (num_ranks < 2 || num_ranks > kMaxTensorParallel) {
    return NotDivided(num_ranks, absl::StrCat("outside [2, ", kMaxTensorParallel, "]"));
  }
  VNSA_ASSIGN_OR_RETURN(const bool split_heads, DividesHeads(options));
  ModelRanks ranks;
  VNSA_ASSIGN_OR_RETURN(ranks.group, MakeGroup(options));
  std::vector<absl::StatusOr<std::unique_ptr<ModelExecutor>>> opened(
      static_cast<size_t>(num_ranks));
  RankTeam team(num_ranks);
  team.Run([&](int rank) {
    opened[static_cast<size_t>(rank)] = ModelExecutor::Create(
        OptionsOf(options, rank), ModelShard{&ranks.group->rank(rank), split_heads});
  });
  for (auto& executor : opened) {
    VNSA_RETURN_IF_ERROR(executor.status());
    ranks.executors.push_back(*std::move(executor));
  }
  return ranks;
}

TensorParallelExecutor::TensorParallelExecutor(std::unique_ptr<CollectiveGroup> group,
                                               std::vector<std::unique_ptr<Executor>> ranks)
    : group_(std::move(group)),
      ranks_(std::move(ranks)),
      team_(group_->num_ranks()),
      info_(Together(ranks_)),
      results_(ranks_.size()) {
  VNSA_CHECK_EQ(static_cast<int>(ranks_.size()), group_->num_ranks());
}

TensorParallelExecutor::~TensorParallelExecutor() {
  team_.Run([&](int rank) { ranks_[static_cast<size_t>(rank)] = nullptr; });
}

absl::Status TensorParallelExecutor::AddSequence(SequenceSpec spec) {
  const SequenceId id = spec.id;
  CancelFlag flag{spec.cancelled, std::make_shared<std::atomic<bool>>(false)};
  if (flag.real != nullptr) spec.cancelled = flag.seen;
  std::vector<std::shared_ptr<SharedPatches>> visuals;
  for (const auto& visual : spec.visuals) {
    // A null one is for the ranks to refuse.
    visuals.push_back(
        visual == nullptr ? nullptr : std::make_shared<SharedPatches>(visual, team_.num_ranks()));
  }
  std::vector<absl::Status> added(ranks_.size());
  team_.Run([&](int rank) {
    SequenceSpec own = spec;
    for (size_t i = 0; i < visuals.size(); ++i) {
      if (visuals[i] != nullptr) own.visuals[i] = visuals[i]->ForRank();
    }
    const size_t index = static_cast<size_t>(rank);
    added[index] = ranks_[index]->AddSequence(std::move(own));
  });
  const auto refused = std::find_if(added.begin(), added.end(),
                                    [](const absl::Status& status) { return !status.ok(); });
  if (refused == added.end()) {
    flags_.emplace(id, std::move(flag));
    return absl::OkStatus();
  }
  team_.Run([&](int rank) {
    const size_t index = static_cast<size_t>(rank);
    if (added[index].ok()) ranks_[index]->ReleaseSequence(id);
  });
  return *refused;
}

void TensorParallelExecutor::ReleaseSequence(SequenceId sequence) {
  flags_.erase(sequence);
  team_.Run([&](int rank) { ranks_[static_cast<size_t>(rank)]->ReleaseSequence(sequence); });
}

absl::StatusOr<StepResult> TensorParallelExecutor::Run(const StepPlan& plan) {
  for (auto& [id, flag] : flags_) {
    if (flag.real != nullptr && flag.real->load(std::memory_order_relaxed)) *flag.seen = true;
  }
  team_.Run([&](int rank) {
    const size_t index = static_cast<size_t>(rank);
    results_[index] = ranks_[index]->Run(plan);
    if (!results_[index].ok()) group_->Abort(results_[index].status());
  });
  // The group's status is the failure that came first; the others only stopped waiting.
  VNSA_RETURN_IF_ERROR(group_->rank(0).status());
  VNSA_RETURN_IF_ERROR(CheckAgreement());
  return std::move(results_[0]);
}

// Ranks that sample different tokens from logits that are the same have a broken device among them.
absl::Status TensorParallelExecutor::CheckAgreement() const {
  const StepResult& first = *results_[0];
  for (size_t rank = 1; rank < results_.size(); ++rank) {
    const StepResult& own = *results_[rank];
    bool alike = own.tokens.size() == first.tokens.size() && own.skipped == first.skipped;
    for (size_t i = 0; alike && i < own.tokens.size(); ++i) {
      alike = own.tokens[i].token_id == first.tokens[i].token_id;
    }
    if (alike) continue;
    return MakeError(absl::StatusCode::kUnavailable, "DEVICE_LOST",
                     absl::StrCat("rank ", rank, " of ", results_.size(),
                                  " gave other tokens in step ", first.step, " than rank 0"));
  }
  return absl::OkStatus();
}

// Ranks have equally many heads (or all have all): means over heads are means over ranks.
AttentionAccount TensorParallelExecutor::Account(SequenceId sequence) const {
  AttentionAccount sum = ranks_[0]->Account(sequence);
  const int64_t count = static_cast<int64_t>(ranks_.size());
  for (size_t rank = 1; rank < ranks_.size(); ++rank) {
    const AttentionAccount own = ranks_[rank]->Account(sequence);
    for (size_t i = 0; i < sum.layers.size(); ++i) sum.layers[i] += own.layers[i];
    for (size_t i = 0; i < sum.gates.size(); ++i) {
      sum.gates[i].compressed += own.gates[i].compressed;
      sum.gates[i].selected += own.gates[i].selected;
      sum.gates[i].window += own.gates[i].window;
    }
    AddTo(sum.block_share, own.block_share);
    // Of all heads together it is at least this.
    sum.selected_coverage = std::max(sum.selected_coverage, own.selected_coverage);
  }
  for (BranchPairs& layer : sum.layers) {
    layer.compressed /= count, layer.selected /= count, layer.window /= count;
    layer.dense /= count;
  }
  const double share = 1.0 / static_cast<double>(count);
  for (BranchGates& layer : sum.gates) {
    layer.compressed *= share, layer.selected *= share, layer.window *= share;
  }
  for (double& block : sum.block_share) block *= share;
  return sum;
}

}  // namespace videonsa
