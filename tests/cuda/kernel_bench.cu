// size: the rows of one table, in one program
#include <algorithm>
#include <functional>

#include "kernels/attention/cuda_attention.h"
#include "kernels/elementwise/cuda_elementwise.h"
#include "kernels/elementwise/cuda_matvec.h"
#include "kernels/nsa/nsa_stages.cuh"
#include "kernels/sampling/cuda_sampling.h"
#include "kernels/vision/cuda_vision.h"
#include "tests/cuda/gpu_check.h"

/// Times every kernel at the shape of Qwen2.5-VL-7B beside its floor and measured peers.
///
/// Usage: cuda_kernel_bench [layers] [tokens...] (8192 32768 131072; layers: nothing else). Random
/// numbers; choices both from
/// random scores and overlapping ones. Floors: 790 TFLOP/s bf16 and 4.3 TB/s (an H200); peers: the
/// released PyTorch kernels and torch's flash attention on an H200 (0: not measured).
namespace videonsa::gpu_check {
namespace {

constexpr int kHeads = 28, kKvHeads = 4, kDim = 128, kBlocks = 32, kWindow = 256;
constexpr int kWidth = kHeads * kDim;
constexpr double kFlops = 790e12, kBytes = 4.3e12;

double Milliseconds(const std::function<void()>& run) {
  cudaEvent_t begin, end;
  Must(cudaEventCreate(&begin), "event");
  Must(cudaEventCreate(&end), "event");
  run();  // warm-up
  Must(cudaDeviceSynchronize(), "bench");
  float best = 1e30f, all = 0;
  for (int i = 0; i < 20 && (i < 2 || all < 60); ++i) {
    Must(cudaEventRecord(begin), "event");
    run();
    Must(cudaEventRecord(end), "event");
    Must(cudaEventSynchronize(end), "bench");
    float ms = 0;
    Must(cudaEventElapsedTime(&ms, begin, end), "event");
    best = std::min(best, ms);
    all += ms;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

void Report(const char* name, int64_t tokens, double ms, double floor_ms, double peer_ms) {
  std::printf("%-34s %7lld %9.3f ms  floor %8.3f (%3.0f %%)", name, static_cast<long long>(tokens),
              ms, floor_ms, 100 * floor_ms / ms);
  if (peer_ms > 0) std::printf("  peer %8.2f (%.2f x)", peer_ms, peer_ms / ms);
  std::printf("\n");
  std::fflush(stdout);
}

// Random bf16 numbers of any length: a block of a million, repeated.
void FillRandom(DeviceArray<uint16_t>& to, float scale) {
  std::mt19937 rng(1);
  std::vector<uint16_t> host;
  for (float x : Normal(rng, size_t{1} << 20, scale)) host.push_back(RoundToBf16(x));
  for (size_t at = 0; at < to.size(); at += host.size() - 77) {
    const size_t count = std::min(host.size(), to.size() - at);
    Must(cudaMemcpy(to.get() + at, host.data(), count * 2, cudaMemcpyHostToDevice), "upload");
  }
}

// Everything one layer of a prompt of `tokens` vision tokens needs.
struct Layer {
  explicit Layer(int n)
      : tokens(n),
        pages(n / 64),
        q(size_t(n) * kWidth),
        out(size_t(n) * kWidth),
        k(size_t(n) * kKvHeads * kDim),
        v(k.size()),
        k_pooled(size_t(pages) * kKvHeads * kDim),
        v_pooled(k_pooled.size()),
        ids(PageIds(pages)),
        gates(std::vector<float>(size_t(n) * kHeads * 3, 0.1f)),
        is_vision(std::vector<uint8_t>(size_t(n), 1)),
        blocks(size_t(n) * kKvHeads * kBlocks) {
    FillRandom(q, 1.0f), FillRandom(k, 1.0f), FillRandom(v, 1.0f);
    kv = {DType::kBF16,   k.get(),   v.get(),  k_pooled.get(),
          v_pooled.get(), ids.get(), kKvHeads, kDim};
    Must(cudaMemset(k_pooled.get(), 0, k_pooled.size() * 4), "memset");
    // The pages are full already; writing the last row of each again makes its pooled row.
    CudaKvAppendParams append;
    append.kv = kv;
    append.k = {q.get(), DType::kBF16, kWidth};
    append.v = {q.get() + kKvHeads * kDim, DType::kBF16, kWidth};
    append.num_rows = n;
    append_ms = Milliseconds([&] { Must(LaunchKvAppend(append, nullptr), "append"); });
  }
  static std::vector<int32_t> PageIds(int pages) {
    std::vector<int32_t> ids(size_t(pages), 0);
    for (int i = 0; i < pages; ++i) ids[size_t(i)] = i;
    std::mt19937 rng(2);
    std::shuffle(ids.begin(), ids.end(), rng);
    return ids;
  }

  int tokens, pages;
  DeviceArray<uint16_t> q, out, k, v;
  DeviceArray<float> k_pooled, v_pooled;
  DeviceArray<int32_t> ids;
  DeviceArray<float> gates;
  DeviceArray<uint8_t> is_vision;
  DeviceArray<int32_t> blocks;
  PagedKv kv;
  double append_ms = 0;
  const float scale = 0.08838834764831845f;
};

template <typename Policy>
void FillRows(const Layer& l, DeviceArray<float>& sum, Policy& policy) {
  cuda::FillPages(l.kv, policy);
  policy.q = cuda::DeviceRows(CudaConstRows{l.q.get(), DType::kBF16, kWidth});
  policy.out = cuda::DeviceRows(CudaConstRows{sum.get(), DType::kF32, kWidth});
  policy.row_end = l.tokens;
  policy.num_q_heads = kHeads;
  policy.gates = l.gates.get();
  policy.gates_stride = kHeads * 3;
  policy.add = sum.get();
  policy.add_stride = kWidth;
}

// Sum over rows of the keys of their chosen blocks.
double SelectedKeys(int64_t n) {
  double keys = 0;
  for (int64_t i = 0; i < n; ++i) {
    keys += static_cast<double>((std::min<int64_t>(kBlocks, i / 64 + 1) - 1) * 64 + i % 64 + 1);
  }
  return keys;
}

// Rows of a block of 64 choose the same blocks but for `differ` of them.
std::vector<int32_t> OverlappingChoice(int n, int differ) {
  std::mt19937 rng(3);
  std::vector<int32_t> blocks(size_t(n) * kKvHeads * kBlocks, -1);
  for (int own = 0; own < n / 64; ++own) {
    for (int h = 0; h < kKvHeads; ++h) {
      std::vector<int32_t> pool(static_cast<size_t>(own));
      for (int b = 0; b < own; ++b) pool[size_t(b)] = b;
      std::shuffle(pool.begin(), pool.end(), rng);
      const int take = std::min(own, kBlocks - 1);
      for (int t = 0; t < 64; ++t) {
        std::vector<int32_t> mine(pool.begin(), pool.begin() + take);
        for (int i = 0; i < differ && take < own; ++i) {
          mine[size_t(i)] = pool[size_t(take) + rng() % size_t(own - take)];
        }
        mine.push_back(own);
        std::sort(mine.begin(), mine.end());
        mine.erase(std::unique(mine.begin(), mine.end()), mine.end());
        std::copy(mine.begin(), mine.end(),
                  blocks.begin() + ((int64_t{own} * 64 + t) * kKvHeads + h) * kBlocks);
      }
    }
  }
  return blocks;
}

// Both designs: tiles of rows over the union of their blocks, and rows gathered by block.
void BenchSelected(Layer& l, DeviceArray<float>& sum, const char* name, double peer) {
  cuda::SelectedPolicy<__nv_bfloat16> policy;
  FillRows(l, sum, policy);
  policy.branch = 1;
  policy.blocks = l.blocks.get();
  policy.count = kBlocks;
  const double floor = 4.0 * kDim * kHeads * SelectedKeys(l.tokens) / kFlops * 1e3;
  const size_t bytes =
      cuda::GatheredScratchBytes(l.tokens, l.tokens, kKvHeads, kHeads / kKvHeads, kBlocks, kDim);
  const DeviceArray<uint8_t> scratch(bytes);
  const auto gathered = [&] {
    Must(cuda::LaunchGathered(policy, kKvHeads, l.scale, {scratch.get(), bytes}, nullptr),
         "gathered");
  };
  const auto by_union = [&] {
    Must(cuda::LaunchSelected(policy, kKvHeads, l.scale, nullptr), "selected");
  };
  Report((std::string("selected by union, ") + name).c_str(), l.tokens, Milliseconds(by_union),
         floor, peer);
  Report((std::string("selected gathered, ") + name).c_str(), l.tokens, Milliseconds(gathered),
         floor, peer);
}

struct Peers {
  int tokens;
  double dense, compressed, scores, selected, window;
};
constexpr Peers kPeers[] = {{32768, 11.3, 1.55, 6.55, 18.2, 1.74},
                            {65536, 51.2, 4.83, 25.2, 37.4, 3.39},
                            {131072, 217, 14.7, 99.8, 79.0, 6.78}};

Peers PeersOf(int tokens) {
  for (const Peers& p : kPeers) {
    if (p.tokens == tokens) return p;
  }
  return {};
}

// Scores and both choices from block means and log-sum-exps; leaves a choice from random scores.
void BenchChoice(Layer& l, cuda::BlockScores<__nv_bfloat16> scores, double floor) {
  const int n = l.tokens, stride = scores.blocks_stride;
  const double peer = PeersOf(n).scores;
  const int score_rows = cuda::ScoreRows(kKvHeads, stride, n);
  DeviceArray<float> score_buffer(size_t(score_rows) * kKvHeads * stride);
  DeviceArray<uint8_t> steep(size_t(score_rows) * kKvHeads);
  scores.scores = score_buffer.get();
  cuda::BlockChoice choice;
  choice.scores = score_buffer.get();
  choice.blocks_stride = stride;
  choice.num_kv_heads = kKvHeads;
  choice.count = kBlocks;
  choice.blocks = l.blocks.get();
  const auto choose = [&](const auto& launch) {
    return Milliseconds([&] {
      for (int begin = 0; begin < n; begin += score_rows) {
        scores.begin = choice.begin = begin;
        scores.end = choice.end = std::min(n, begin + score_rows);
        Must(launch(), "choice");
      }
    });
  };
  const auto scored = [&](cudaError_t (*launch)(const cuda::BlockChoice&, cudaStream_t)) {
    const cudaError_t status = cuda::LaunchBlockScores(scores, nullptr);
    return status != cudaSuccess ? status : launch(choice, nullptr);
  };
  Report("  scores alone", n, choose([&] { return cuda::LaunchBlockScores(scores, nullptr); }),
         floor, 0);
  Report("scores + network choice", n, choose([&] { return scored(cuda::LaunchNetworkChoice); }),
         floor, peer);
  // What every row costs more if its weights leave fp32.
  steep.Fill(1);
  scores.steep = choice.steep = steep.get();
  choice.logs = true;
  Report("  the second pass of steep rows", n,
         choose([&] { return scored(cuda::LaunchCausalChoice); }), floor, 0);
  scores.steep = choice.steep = nullptr;
  choice.logs = false;
  Report("scores + top-n", n,
         choose([&] { return cuda::LaunchScoredChoice(scores, choice, steep.get(), nullptr); }),
         floor, peer);
}

// Block means, compressed attention and the choice.
void BenchCompressed(Layer& l, DeviceArray<float>& sum) {
  const int n = l.tokens;
  const double floor = 2.0 * n * (n / 128.0) * kDim * kHeads / kFlops * 1e3;
  const int stride = cuda::BlocksStride(n);
  DeviceArray<__nv_bfloat16> k_means(size_t(kKvHeads) * stride * kDim), v_means(k_means.size());
  DeviceArray<float> lse2(size_t(n) * kHeads);
  const cuda::BlockMeans<__nv_bfloat16> means{l.kv, k_means.get(), v_means.get(), n, stride};
  Must(cuda::LaunchBlockMeans(means, nullptr), "means");
  cuda::CompressedPolicy<__nv_bfloat16> compressed;
  FillRows(l, sum, compressed);
  compressed.add = nullptr;
  compressed.k_means = means.k;
  compressed.v_means = means.v;
  compressed.num_blocks = n / 64;
  compressed.blocks_stride = stride;
  compressed.lse2 = lse2.get();
  const auto compress = [&] {
    Must(cuda::LaunchCompressed(compressed, kKvHeads, l.scale, nullptr), "compressed");
  };
  Report("compressed attention", n, Milliseconds(compress), 2 * floor, PeersOf(n).compressed);
  cuda::BlockScores<__nv_bfloat16> scores;
  scores.k_means = means.k;
  scores.num_kv_heads = kKvHeads;
  scores.head_dim = kDim;
  scores.blocks_stride = stride;
  scores.q = compressed.q;
  scores.num_q_heads = kHeads;
  scores.lse2 = lse2.get();
  scores.scale = l.scale;
  BenchChoice(l, scores, floor);
}

void BenchDense(const Layer& l) {
  const int n = l.tokens;
  CudaDensePrefillParams dense;
  dense.kv = l.kv;
  dense.q = {l.q.get(), DType::kBF16, kWidth};
  dense.out = {l.out.get(), DType::kBF16, kWidth};
  dense.num_q_heads = kHeads;
  dense.row_end = n;
  dense.scale = l.scale;
  const auto run = [&] { Must(LaunchDensePrefill(dense, nullptr), "dense"); };
  Report("dense causal", n, Milliseconds(run), 2.0 * n * n * kDim * kHeads / kFlops * 1e3,
         PeersOf(n).dense);
  dense.row_begin = n - 128;
  Report("dense, last 128 rows", n, Milliseconds(run), 4.0 * n * 128 * kDim * kHeads / kFlops * 1e3,
         0);
}

void BenchNsa(int n) {
  Layer l(n);
  DeviceArray<float> sum(size_t(n) * kWidth);
  const Peers peer = PeersOf(n);
  Report("kv_append with pooling", n, l.append_ms, 8.0 * n * kKvHeads * kDim / kBytes * 1e3, 0);
  BenchCompressed(l, sum);
  BenchSelected(l, sum, "random", peer.selected);
  l.blocks.Set(OverlappingChoice(n, 3));
  BenchSelected(l, sum, "3 of 32 differ", peer.selected);
  l.blocks.Set(OverlappingChoice(n, 12));
  BenchSelected(l, sum, "12 of 32 differ", peer.selected);
  cuda::WindowPolicy<__nv_bfloat16> window;
  FillRows(l, sum, window);
  window.window = kWindow;
  const auto run = [&] { Must(cuda::LaunchWindow(window, kKvHeads, l.scale, nullptr), "window"); };
  Report("window 256", n, Milliseconds(run), 4.0 * n * kWindow * kDim * kHeads / kFlops * 1e3,
         peer.window);
  BenchDense(l);
}

// A layer's attention as the model asks for it: 32 rows of text before and behind the clip.
void BenchLayers(int n) {
  constexpr int kText = 32;
  Layer l(n);
  std::vector<uint8_t> is_vision(size_t(n), 1);
  std::fill_n(is_vision.begin(), kText, uint8_t{0});
  std::fill_n(is_vision.end() - kText, kText, uint8_t{0});
  l.is_vision.Set(is_vision);
  const CudaRowRange text[] = {{0, kText}, {n - kText, n}};
  CudaCausalNsaParams causal;
  const size_t bytes = std::max(CudaCausalNsaScratchBytes(l.kv, kHeads, n, n, kBlocks),
                                CudaReleasedNsaScratchBytes(l.kv, n, kBlocks));
  const DeviceArray<uint8_t> scratch(bytes);
  causal.kv = l.kv;
  causal.q = {l.q.get(), DType::kBF16, kWidth};
  causal.out = {l.out.get(), DType::kBF16, kWidth};
  causal.gates = l.gates.get();
  causal.gates_stride = kHeads * 3;
  causal.is_vision = l.is_vision.get();
  causal.text = text;
  causal.num_text = 2;
  causal.num_q_heads = kHeads;
  causal.row_end = n;
  causal.selected_blocks = kBlocks;
  causal.window = kWindow;
  causal.scale = l.scale;
  causal.scratch = {scratch.get(), bytes};
  Report("causal_nsa, a layer", n,
         Milliseconds([&] { Must(LaunchCausalNsa(causal, nullptr), "causal_nsa"); }), 0, 0);
  CudaReleasedNsaParams released;
  released.kv = l.kv;
  released.q = causal.q;
  released.out = causal.out;
  released.gates = causal.gates;
  released.gates_stride = causal.gates_stride;
  released.is_vision = causal.is_vision;
  released.text = causal.text;
  released.num_text = causal.num_text;
  released.num_rows = n;
  released.selected_blocks = kBlocks;
  released.window = kWindow;
  released.scale = l.scale;
  released.scratch = causal.scratch;
  const auto run = [&] { Must(LaunchReleasedNsa(released, nullptr), "released_nsa"); };
  Report("released_nsa, a layer", n, Milliseconds(run), 0, 0);
  released.row_begin = n - 1;
  released.text = nullptr;
  Report("released_nsa, the last row", n, Milliseconds(run), 0, 0);
}

void BenchDecode(int context, int batch) {
  Layer l(context);
  const int pages = context / 64;
  // Sequences share the pages' bytes where the card is too small for all; tables are shuffled.
  std::vector<int32_t> tables;
  std::mt19937 rng(5);
  for (int s = 0; s < batch; ++s) {
    std::vector<int32_t> ids = Layer::PageIds(pages);
    std::shuffle(ids.begin(), ids.end(), rng);
    tables.insert(tables.end(), ids.begin(), ids.end());
  }
  const DeviceArray<int32_t> device_tables(tables);
  const DeviceArray<int32_t> lens(std::vector<int32_t>(size_t(batch), context));
  const size_t bytes = CudaDecodeScratchBytes(batch, context, kHeads, kDim);
  const DeviceArray<uint8_t> scratch(bytes);
  CudaDecodeParams p;
  p.kv = l.kv;
  p.q = {l.q.get(), DType::kBF16, kWidth};
  p.out = {l.out.get(), DType::kBF16, kWidth};
  p.page_tables = device_tables.get();
  p.table_stride = pages;
  p.kv_lens = lens.get();
  p.num_seqs = batch;
  p.max_kv_len = context;
  p.num_q_heads = kHeads;
  p.scale = l.scale;
  p.scratch = {scratch.get(), bytes};
  char name[60];
  std::snprintf(name, sizeof(name), "decode, batch %d, one layer", batch);
  Report(name, context, Milliseconds([&] { Must(LaunchDecode(p, nullptr), "decode"); }),
         double(batch) * context * kKvHeads * kDim * 4 / kBytes * 1e3, 0);
}

void BenchVision(int tokens) {
  constexpr int kVisionHeads = 16, kVisionDim = 80, kVisionWidth = kVisionHeads * kVisionDim;
  const int rows = tokens * 4;
  DeviceArray<uint16_t> qkv(size_t(rows) * 3 * kVisionWidth), out(size_t(rows) * kVisionWidth);
  FillRandom(qkv, 1.0f);
  for (int segment : {64, 256}) {
    std::vector<int32_t> segments;
    for (int row = 0; row <= rows; row += segment) segments.push_back(row);
    const DeviceArray<int32_t> device_segments(segments);
    CudaVisionAttentionParams p;
    p.qkv = {qkv.get(), DType::kBF16, 3 * kVisionWidth};
    p.out = {out.get(), DType::kBF16, kVisionWidth};
    p.segments = device_segments.get();
    p.num_segments = static_cast<int>(segments.size()) - 1;
    p.max_segment_rows = segment;
    p.num_heads = kVisionHeads;
    p.head_dim = kVisionDim;
    p.scale = 0.1118f;
    Report(segment == 64 ? "vision windows of 64, one layer" : "vision frames of 256, one layer",
           tokens, Milliseconds([&] { Must(LaunchVisionAttention(p, nullptr), "vision"); }),
           double(rows) * kVisionWidth * 8 / kBytes * 1e3, 0);
  }
}

void BenchRows(int n) {
  constexpr int kHidden = 3584, kInner = 18944;
  const int rows = std::min(n, 32768);
  DeviceArray<uint16_t> gate_up(size_t(rows) * 2 * kInner), out(size_t(rows) * kInner);
  DeviceArray<float> x(size_t(rows) * kHidden), weight(kHidden);
  FillRandom(gate_up, 1.0f);
  x.Fill(0), weight.Fill(0);
  const CudaRmsNormParams norm{{x.get(), DType::kF32, kHidden},
                               {out.get(), DType::kBF16, kHidden},
                               weight.get(),
                               1e-6f,
                               rows,
                               kHidden};
  Report("rms_norm f32 -> bf16", rows,
         Milliseconds([&] { Must(LaunchRmsNorm(norm, nullptr), "norm"); }),
         double(rows) * kHidden * 6 / kBytes * 1e3, 0);
  const CudaSwiGluParams swiglu{{gate_up.get(), DType::kBF16, 2 * kInner},
                                {gate_up.get() + kInner, DType::kBF16, 2 * kInner},
                                {out.get(), DType::kBF16, kInner},
                                rows,
                                kInner};
  Report("swiglu", rows, Milliseconds([&] { Must(LaunchSwiGlu(swiglu, nullptr), "swiglu"); }),
         double(rows) * kInner * 6 / kBytes * 1e3, 0);
  DeviceArray<float> table(size_t(rows) * 128);
  table.Fill(0);
  CudaRopeParams rope;
  rope.x = {gate_up.get(), DType::kBF16, 4608};
  rope.cos = table.get();
  rope.sin = table.get() + size_t(rows) * 64;
  rope.rows = rows;
  rope.num_heads = 32;
  rope.head_dim = 128;
  Report("rope of q and k", rows, Milliseconds([&] { Must(LaunchRope(rope, nullptr), "rope"); }),
         double(rows) * 4096 * 4 / kBytes * 1e3, 0);
}

// The products of a decoder layer for few tokens; the smaller ones repeat within the cache.
void BenchMatVec() {
  constexpr int kHidden = 3584, kInner = 18944;
  DeviceArray<uint16_t> w(size_t{2} * kInner * kHidden), x(size_t{4} * kInner);
  DeviceArray<float> out(size_t{4} * kInner);
  FillRandom(w, 0.02f), FillRandom(x, 1.0f);
  const struct {
    const char* name;
    int n, k;
    bool gated;
  } products[] = {{"matvec, q k v", 4608, kHidden, false},
                  {"matvec, attention out", kHidden, kHidden, false},
                  {"matvec, gate and up", kInner, kHidden, true},
                  {"matvec, down", kHidden, kInner, false}};
  for (int rows : {1, 4}) {
    for (const auto& product : products) {
      CudaMatVecParams p;
      p.w = w.get();
      if (product.gated) p.gate = w.get() + size_t{kInner} * kHidden;
      p.w_stride = p.k = product.k;
      p.x = {x.get(), DType::kBF16, product.k};
      p.out = {out.get(), DType::kF32, product.n};
      p.rows = rows;
      p.n = product.n;
      Report(product.name, rows, Milliseconds([&] { Must(LaunchMatVec(p, nullptr), "matvec"); }),
             2.0 * product.n * product.k * (product.gated ? 2 : 1) / kBytes * 1e3, 0);
    }
  }
}

void BenchSampling() {
  constexpr int kRows = 64, kVocab = 152064;
  std::mt19937 rng(7);
  std::vector<float> host;
  for (int r = 0; r < kRows; ++r) {
    const std::vector<float> row = Normal(rng, 65536, 3.0f);
    for (int i = 0; i < kVocab; ++i) host.push_back(row[size_t(i * 31 + r) % row.size()]);
  }
  const DeviceArray<float> logits(host);
  const DeviceArray<int32_t> ids(kRows);
  for (bool draw : {false, true}) {
    CudaSampleSettings one;
    if (draw) one.temperature = 0.7f, one.top_p = 0.9f, one.uniform = 0.4;
    const DeviceArray<CudaSampleSettings> settings(std::vector<CudaSampleSettings>(kRows, one));
    CudaSampleParams p;
    p.logits = logits.get();
    p.logits_stride = kVocab;
    p.settings = settings.get();
    p.ids = ids.get();
    p.num_rows = kRows;
    p.vocab = kVocab;
    Report(draw ? "sample top-p 0.9, 64 rows" : "sample greedy, 64 rows", kVocab,
           Milliseconds([&] { Must(LaunchSample(p, nullptr), "sample"); }),
           double(kRows) * kVocab * 4 / kBytes * 1e3, 0);
  }
}

}  // namespace
}  // namespace videonsa::gpu_check

namespace videonsa::gpu_check {

int RunBench(int argc, char** argv) {
  cudaDeviceProp properties;
  Must(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("device %s\n", properties.name);
  std::vector<int> lengths;
  const bool layers_only = argc > 1 && std::string(argv[1]) == "layers";
  for (int i = layers_only ? 2 : 1; i < argc; ++i) {
    lengths.push_back(std::atoi(argv[i]) / 64 * 64);
  }
  if (lengths.empty()) lengths = {8192, 32768, 131072};
  for (int n : lengths) {
    BenchLayers(n);
    if (layers_only) continue;
    BenchNsa(n);
    BenchVision(std::min(n, 32768));
  }
  if (layers_only) return 0;
  for (auto [context, batch] :
       {std::pair{32768, 1}, {32768, 16}, {32768, 64}, {131072, 1}, {131072, 16}}) {
    BenchDecode(context, batch);
  }
  BenchRows(32768);
  BenchMatVec();
  BenchSampling();
  return 0;
}

}  // namespace videonsa::gpu_check
