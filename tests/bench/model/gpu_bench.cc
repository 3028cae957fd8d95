// The shape of a configuration with random weights on one GPU: vision tower, prefill by attention
// and length, decode by batch. Needs no gRPC and no FFmpeg.
//
// Usage: gpu_bench CONFIG [--attention NAME]... [--tokens N]... [--batch N]... [--cached N]
//                  [--rows N]   rows of one pass through a layer (16384, the server's default)
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/executor/model_executor.h"

namespace videonsa::bench {
namespace {

struct Options {
  std::string config;
  std::vector<AttentionSemantics> semantics;
  std::vector<int> tokens, batches;
  int cached = 32768;
  int rows = 16384;
  int selected_blocks = 32;
  int window_tokens = 256;
};

constexpr int kTextTokens = 64;  // around the clip

long long Millions(int64_t count) { return static_cast<long long>((count + 500000) / 1000000); }
double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

void FillClip(int frames, uint64_t seed, PatchBatch& clip) {
  clip.grid = {frames, 16, 16};
  std::mt19937 random(static_cast<unsigned>(seed));
  std::uniform_real_distribution<float> uniform(-2, 2);
  std::vector<float> pattern(1 << 16);
  for (float& value : pattern) value = uniform(random);
  clip.rows.resize(static_cast<size_t>(clip.grid.num_patches()) * kPatchDim);
  for (size_t i = 0; i < clip.rows.size(); ++i) clip.rows[i] = pattern[i * 40503 % (1 << 16)];
}

// A clip of 224 x 224 (64 tokens a temporal patch) between words; pages 0, 1, ...
SequenceSpec ClipPrompt(const ModelConfig& config, const Options& options, uint64_t id, int tokens,
                        AttentionSemantics semantics, int answer,
                        const std::shared_ptr<PatchBatch>& clip) {
  SequenceSpec spec;
  spec.id = SequenceId{id};
  const int frames = (tokens - kTextTokens) / 64, visual = 64 * frames;
  std::vector<int32_t> axes[3];
  const auto add = [&](int32_t token, int t, int h, int w) {
    spec.token_ids.push_back(token);
    axes[0].push_back(t), axes[1].push_back(h), axes[2].push_back(w);
  };
  int next = 0;
  for (; next < kTextTokens / 2; ++next) add(1000 + next, next, next, next);
  for (int i = 0; i < visual; ++i) {
    add(config.tokens.video_pad, next + i / 64, next + i % 64 / 8, next + i % 8);
  }
  next += std::max(frames, 8);
  while (static_cast<int>(spec.token_ids.size()) < tokens)
    add(1000 + next, next, next, next), ++next;
  spec.next_position = next;
  for (const auto& axis : axes) {
    spec.positions.insert(spec.positions.end(), axis.begin(), axis.end());
  }
  spec.sampling.max_output_tokens = answer;
  spec.sampling.suppress_eos = true;
  spec.attention.semantics = semantics;
  spec.attention.selected_blocks = options.selected_blocks;
  spec.attention.window_tokens = options.window_tokens;
  for (int page = 0; page <= (tokens + answer) / kPageTokens; ++page) spec.page_ids.push_back(page);
  if (clip == nullptr) return spec;
  if (clip->rows.empty()) FillClip(frames, id, *clip);
  spec.vision_spans.push_back({kTextTokens / 2, visual, 0});
  spec.visuals.push_back(WholePatches(clip));
  return spec;
}

struct Times {
  double vision = 0, prefill = 0;
  BranchPairs pairs;  // of the request, all layers
  double budget = 0;  // scored pairs over those of causal attention
};

absl::StatusOr<Times> RunPrompt(ModelExecutor& executor, const SequenceSpec& spec) {
  if (absl::Status added = executor.AddSequence(spec); !added.ok()) return added;
  const auto vision = executor.Run({0, {{spec.id, 0, 0, spec.visuals[0]->grid().t}}, {}, {}});
  if (!vision.ok()) return vision.status();
  const auto prefill = executor.Run(
      {0,
       {},
       {{spec.id, 0, static_cast<int>(spec.token_ids.size()), 0, executor.info().num_layers}},
       {}});
  if (!prefill.ok()) return prefill.status();
  const AttentionAccount account = executor.Account(spec.id);
  const BranchPairs pairs = account.total();
  return Times{Seconds(vision->vision_time), Seconds(prefill->prefill_time), pairs,
               static_cast<double>(pairs.total()) / static_cast<double>(account.dense_pairs)};
}

absl::Status BenchPrompts(ModelExecutor& executor, const Options& options) {
  for (const AttentionSemantics semantics : options.semantics) {
    for (const int tokens : options.tokens) {
      Times best{1e9, 1e9, {}, 0};
      const int repeats = tokens <= 40000 ? 3 : 2;
      const auto clip = std::make_shared<PatchBatch>();
      for (int run = 0; run < repeats; ++run) {
        const SequenceSpec spec =
            ClipPrompt(executor.model().config(), options, 1, tokens, semantics, 1, clip);
        const absl::StatusOr<Times> times = RunPrompt(executor, spec);
        executor.ReleaseSequence(spec.id);
        if (!times.ok()) return times.status();
        best = {std::min(best.vision, times->vision), std::min(best.prefill, times->prefill),
                times->pairs, times->budget};
      }
      const BranchPairs& pairs = best.pairs;
      std::printf(
          "prefill %-12s %6d tokens: language model %7.3f s, vision tower %7.3f s, "
          "%5.1f %% of dense pairs (million: compressed %lld, selected %lld, window %lld, "
          "dense %lld)\n",
          SemanticsName(semantics), tokens, best.prefill, best.vision, 100 * best.budget,
          Millions(pairs.compressed), Millions(pairs.selected), Millions(pairs.window),
          Millions(pairs.dense));
      std::fflush(stdout);
    }
  }
  return absl::OkStatus();
}

// Decode steps of sequences that share the pages of one prompt: what is timed reads them all.
absl::Status BenchDecode(ModelExecutor& executor, const Options& options) {
  constexpr int kSteps = 24;
  const ModelConfig& config = executor.model().config();
  const int own_page = options.cached / kPageTokens;
  for (const int batch : options.batches) {
    std::vector<SequenceId> ids;
    for (int i = 0; i < batch; ++i) {
      SequenceSpec spec =
          ClipPrompt(config, options, 100 + static_cast<uint64_t>(i), options.cached,
                     AttentionSemantics::kDense, kSteps + 2, nullptr);
      // The prompt's pages are another's, the last one and those of the answer its own.
      for (size_t page = static_cast<size_t>(own_page) - 1; page < spec.page_ids.size(); ++page) {
        spec.page_ids[page] = own_page + 4 * i + static_cast<int>(page) - own_page + 1;
      }
      spec.cached_tokens = options.cached - kPageTokens;
      if (absl::Status added = executor.AddSequence(spec); !added.ok()) return added;
      const auto first = executor.Run(
          {0,
           {},
           {{spec.id, spec.cached_tokens, options.cached, 0, executor.info().num_layers}},
           {}});
      if (!first.ok()) return first.status();
      ids.push_back(spec.id);
    }
    std::vector<double> steps;
    for (int step = 0; step < kSteps; ++step) {
      const auto result = executor.Run({0, {}, {}, ids});
      if (!result.ok()) return result.status();
      steps.push_back(Seconds(result->decode_time));
    }
    for (const SequenceId id : ids) executor.ReleaseSequence(id);
    std::nth_element(steps.begin(), steps.begin() + kSteps / 2, steps.end());
    const double step = steps[kSteps / 2];
    std::printf("decode batch %3d at %d tokens: %7.2f ms a step, %7.0f tokens/s\n", batch,
                options.cached, 1e3 * step, batch / step);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

int Main(const Options& options) {
  ExecutorOptions executor_options;
  executor_options.device = DeviceKind::kCuda;
  executor_options.dummy_weights = true;
  executor_options.dummy_config_path = options.config;
  executor_options.kv_bytes = 0;
  executor_options.max_rows = options.rows;
  if (options.semantics.size() == 1) executor_options.attention = options.semantics[0];
  const absl::Time begin = absl::Now();
  auto executor = ModelExecutor::Create(executor_options);
  if (!executor.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", executor.status().ToString().c_str());
    return 1;
  }
  const ExecutorInfo& info = (*executor)->info();
  std::printf("%s, %s: loaded in %.1f s; %d pages of %lld bytes = %lld tokens for %s\n",
              (*executor)->backend().device().name().c_str(), options.config.c_str(),
              Seconds(absl::Now() - begin), info.num_pages, static_cast<long long>(info.page_bytes),
              static_cast<long long>(info.num_pages) * kPageTokens, SemanticsName(info.semantics));
  absl::Status status = BenchPrompts(**executor, options);
  if (status.ok()) status = BenchDecode(**executor, options);
  if (!status.ok()) std::fprintf(stderr, "gpu_bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace videonsa::bench

int main(int argc, char** argv) {
  videonsa::bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto next = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (arg == "--attention") {
      const std::string name = next();
      for (const auto semantics :
           {videonsa::AttentionSemantics::kDense, videonsa::AttentionSemantics::kCausalNsa,
            videonsa::AttentionSemantics::kReleasedNsa}) {
        if (name == videonsa::SemanticsName(semantics)) options.semantics.push_back(semantics);
      }
    } else if (arg == "--tokens") {
      options.tokens.push_back(std::atoi(next().c_str()));
    } else if (arg == "--batch") {
      options.batches.push_back(std::atoi(next().c_str()));
    } else if (arg == "--cached") {
      options.cached = std::atoi(next().c_str()) / 64 * 64;
    } else if (arg == "--rows") {
      options.rows = std::atoi(next().c_str());
    } else {
      options.config = arg;
    }
  }
  if (options.config.empty() || options.cached < 128 || options.rows < 64) {
    std::fprintf(stderr,
                 "usage: gpu_bench CONFIG [--attention dense|causal_nsa|released_nsa]...\n"
                 "                 [--tokens N]... [--batch N]... [--cached N] [--rows N]\n");
    return 2;
  }
  return videonsa::bench::Main(options);
}
