// Prefill and decode of a dense model with random weights, beside transformers on torch's CPU build
// and oneDNN's own GEMM rate.
//
// Usage: model_bench CONFIG [--tokens N] [--decoded N] [--threads N] [--type bf16|f32]
//                    [--peer PYTHON SCRIPT]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "runtime/executor/model_executor.h"
#include "tests/bench/model/gemm_peer.h"

namespace videonsa::bench {
namespace {

struct Options {
  std::string config, python, script;
  int tokens = 4096;
  int decoded = 32;
  int threads = 2;
  bool bf16 = true;
};

struct Times {
  double prefill_s = 0;
  double decode_ms = 0;
};

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

absl::StatusOr<Times> OurTimes(ModelExecutor& executor, const Options& options) {
  Times best{1e9, 1e9};
  for (uint64_t run = 1; run <= 3; ++run) {
    SequenceSpec spec;
    spec.id = SequenceId{run};
    for (int i = 0; i < options.tokens; ++i) {
      spec.token_ids.push_back((i * 37 + static_cast<int>(run)) % 1000);
    }
    for (int axis = 0; axis < 3; ++axis) {
      for (int i = 0; i < options.tokens; ++i) spec.positions.push_back(i);
    }
    spec.next_position = options.tokens;
    spec.sampling.max_output_tokens = options.decoded + 1;
    for (int page = 0; page <= (options.tokens + options.decoded) / kPageTokens; ++page) {
      spec.page_ids.push_back(page);
    }
    if (absl::Status status = executor.AddSequence(spec); !status.ok()) return status;
    auto result =
        executor.Run({0, {}, {{spec.id, 0, options.tokens, 0, executor.info().num_layers}}, {}});
    if (!result.ok()) return result.status();
    best.prefill_s = std::min(best.prefill_s, Seconds(result->prefill_time));
    std::vector<double> steps;
    for (int i = 0; i < options.decoded; ++i) {
      result = executor.Run({0, {}, {}, {spec.id}});
      if (!result.ok()) return result.status();
      steps.push_back(1e3 * Seconds(result->decode_time));
    }
    std::nth_element(steps.begin(), steps.begin() + options.decoded / 2, steps.end());
    best.decode_ms = std::min(best.decode_ms, steps[static_cast<size_t>(options.decoded / 2)]);
    executor.ReleaseSequence(spec.id);
  }
  return best;
}

// Our seconds for the same product as OneDnnSeconds.
double OurGemmSeconds(Gemm& gemm, int64_t m, int64_t n, int64_t k, bool bf16, int repeats) {
  const DType type = bf16 ? DType::kBF16 : DType::kF32;
  const auto aligned = [](int64_t bytes) {
    void* data = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
    std::memset(data, 0, static_cast<size_t>(bytes));
    return std::unique_ptr<void, void (*)(void*)>(data, &std::free);
  };
  const auto x = aligned(m * k * static_cast<int64_t>(SizeOf(type)));
  const auto w = aligned(PackedBytes(type, n, k));
  const auto out = aligned(m * n * 4);
  const GemmParams params{
      x.get(),   k,           m, {type, n, k, w.get()}, nullptr, GemmEpilogue::kStore,
      out.get(), DType::kF32, n};
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    gemm.Run(params);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

// FLOP of a prefill's products and of its causal scores and averages.
double PrefillFlop(const ModelExecutor& executor, double tokens) {
  const ExecutorInfo& info = executor.info();
  const double hidden = info.hidden_size;
  const double inner = executor.model().config().text.intermediate_size;
  const double q = info.num_q_heads * info.head_dim, kv = info.num_kv_heads * info.head_dim;
  const double project = 2 * tokens * hidden * (q + 2 * kv);
  const double finish = 2 * tokens * (q * hidden + 3 * hidden * inner);  // last layer: one row
  const double attend = 2 * tokens * tokens * q;
  return info.num_layers * (project + attend) + (info.num_layers - 1) * finish;
}

// Returns oneDNN's own rate over a layer's products, FLOP a second.
double CompareGemms(ModelExecutor& executor, const Options& options) {
  struct Product {
    const char* name;
    int64_t n, k;
  };
  const ExecutorInfo& info = executor.info();
  const TextConfig& text = executor.model().config().text;
  const int64_t hidden = info.hidden_size, inner = text.intermediate_size;
  const int64_t q = int64_t{info.num_q_heads} * info.head_dim;
  const int64_t kv = int64_t{info.num_kv_heads} * info.head_dim;
  const Product products[] = {{"qkv", q + 2 * kv, hidden},
                              {"o", hidden, q},
                              {"gate", inner, hidden},
                              {"up", inner, hidden},
                              {"down", hidden, inner}};
  ThreadPool pool(options.threads);
  Gemm gemm(pool);
  double ours = 0, theirs = 0, flop = 0;
  for (const Product& p : products) {
    const double one_dnn = OneDnnSeconds(512, p.n, p.k, options.bf16, options.threads, 12);
    const double mine = OurGemmSeconds(gemm, 512, p.n, p.k, options.bf16, 12);
    const double work = 2.0 * 512 * static_cast<double>(p.n) * static_cast<double>(p.k);
    std::printf("gemm %-4s 512 x %5ld x %5ld: %6.1f GFLOP/s, oneDNN %6.1f, share %.2f\n", p.name,
                static_cast<long>(p.n), static_cast<long>(p.k), work / mine / 1e9,
                work / one_dnn / 1e9, one_dnn / mine);
    ours += mine, theirs += one_dnn, flop += work;
  }
  std::printf("gemm all of a layer: %.1f GFLOP/s, share of oneDNN's own rate %.2f\n",
              flop / ours / 1e9, theirs / ours);
  return flop / theirs;
}

int Main(const Options& options) {
  ExecutorOptions executor_options;
  executor_options.dummy_weights = true;
  executor_options.dummy_config_path = options.config;
  executor_options.threads = options.threads;
  executor_options.compute_type = options.bf16 ? ComputeType::kBF16 : ComputeType::kF32;
  executor_options.num_pages = (options.tokens + options.decoded) / kPageTokens + 1;
  auto executor = ModelExecutor::Create(executor_options);
  if (!executor.ok()) {
    std::fprintf(stderr, "model_bench: %s\n", std::string(executor.status().message()).c_str());
    return 1;
  }
  const double rate = CompareGemms(**executor, options);
  const absl::StatusOr<Times> ours = OurTimes(**executor, options);
  if (!ours.ok()) {
    std::fprintf(stderr, "model_bench: %s\n", std::string(ours.status().message()).c_str());
    return 1;
  }
  std::printf("ours: prefill of %d tokens %.3f s, decode %.2f ms a token\n", options.tokens,
              ours->prefill_s, ours->decode_ms);
  const double floor_s = PrefillFlop(**executor, options.tokens) / rate;
  std::printf("floor of the prefill at oneDNN's rate: %.3f s, ours takes %.2f x\n", floor_s,
              ours->prefill_s / floor_s);
  executor->reset();
  if (options.python.empty()) return 0;
  const std::string command = options.python + " " + options.script + " " + options.config + " " +
                              std::to_string(options.tokens) + " " +
                              std::to_string(options.decoded) + " " +
                              std::to_string(options.threads);
  std::FILE* pipe = popen(command.c_str(), "r");
  Times theirs;
  const bool read =
      pipe != nullptr && std::fscanf(pipe, "%lf %lf", &theirs.prefill_s, &theirs.decode_ms) == 2;
  if (pipe != nullptr) pclose(pipe);
  if (!read) {
    std::fprintf(stderr, "model_bench: the peer printed no times\n");
    return 1;
  }
  std::printf("transformers: prefill %.3f s, decode %.2f ms a token\n", theirs.prefill_s,
              theirs.decode_ms);
  std::printf("ratio: prefill %.2f x (at the floor %.2f x), decode %.2f x\n",
              theirs.prefill_s / ours->prefill_s, theirs.prefill_s / floor_s,
              theirs.decode_ms / ours->decode_ms);
  return 0;
}

}  // namespace
}  // namespace videonsa::bench

int main(int argc, char** argv) {
  videonsa::bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto next = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (arg == "--tokens") {
      options.tokens = std::atoi(next());
    } else if (arg == "--decoded") {
      options.decoded = std::atoi(next());
    } else if (arg == "--threads") {
      options.threads = std::atoi(next());
    } else if (arg == "--type") {
      options.bf16 = std::string(next()) != "f32";
    } else if (arg == "--peer") {
      options.python = next();
      options.script = next();
    } else {
      options.config = arg;
    }
  }
  if (options.config.empty() || options.tokens < 1 || options.decoded < 1 || options.threads < 1) {
    std::fprintf(stderr,
                 "usage: model_bench CONFIG [--tokens N] [--decoded N] [--threads N]\n"
                 "                   [--type bf16|f32] [--peer PYTHON SCRIPT]\n");
    return 2;
  }
  return videonsa::bench::Main(options);
}
