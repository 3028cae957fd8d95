#include "kernels/attention/cuda_attention.h"
#include "kernels/common/cuda_scratch.h"
#include "kernels/nsa/nsa_params.h"
#include "kernels/nsa/nsa_stages.cuh"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kHeads = kSlotHeads;
constexpr int kKvHeads = 4;
constexpr int kThreads = 128;

// The copies of a head lie under different KV heads; branches add to a head's row once per KV head,
// so KV heads that share a head run one after the other: 0 and 3, then 1, then 2 (IsSecondCopy).
// The first copy of the first branch begins with the running mean, the second of the last one
// leaves the result.
struct KvPass {
  int first;
  int step;
  int count;
};
constexpr KvPass kKvPasses[] = {{0, 3, 2}, {1, 1, 1}, {2, 1, 1}};

int KeptBlocks(int selected_blocks) {
  int kept = 1;
  while (kept < selected_blocks) kept *= 2;
  return kept;
}

// Sums of the values of whole blocks. CTA: one block of one KV head.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    BlockSumsKernel(PagedKv kv, int num_rows, double* sums) {
  const int block = blockIdx.x, kv_head = blockIdx.y;
  const int keys = min(kTileKeys, num_rows - block * kTileKeys);
  const int64_t tile = int64_t{kv.page_ids[block]} * kv.num_kv_heads + kv_head;
  for (int d = threadIdx.x; d < kv.head_dim; d += kThreads) {
    const T* v = static_cast<const T*>(kv.v_pages) + tile * kTileKeys * kv.head_dim + d;
    double sum = 0;
    for (int key = 0; key < keys; ++key) sum += ToFloat(v[key * kv.head_dim]);
    sums[(int64_t{block} * kv.num_kv_heads + kv_head) * kv.head_dim + d] = sum;
  }
}

// In place: entry b becomes the sum of the blocks before b. A thread owns one column.
__global__ void __launch_bounds__(kThreads) PrefixKernel(double* sums, int num_blocks, int width) {
  constexpr int kAhead = 16;
  const int column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= width) return;
  double before = 0;
  for (int first = 0; first < num_blocks; first += kAhead) {
    double ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      ahead[i] = first + i < num_blocks ? sums[int64_t{first + i} * width + column] : 0.0;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i < num_blocks) sums[int64_t{first + i} * width + column] = before;
      before += ahead[i];
    }
  }
}

// Means of all values up to vision rows from row_begin on, where `means` [rows, kKvHeads, head_dim]
// and `is_vision` begin (quirk Q7). CTA: one block of one KV head.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RunningMeanKernel(PagedKv kv, int num_rows, const double* sums, const uint8_t* is_vision,
                      int row_begin, float* means) {
  const int block = row_begin / kTileKeys + blockIdx.x, kv_head = blockIdx.y;
  const int keys = min(kTileKeys, num_rows - block * kTileKeys);
  const int64_t tile = int64_t{kv.page_ids[block]} * kv.num_kv_heads + kv_head;
  for (int d = threadIdx.x; d < kv.head_dim; d += kThreads) {
    const T* v = static_cast<const T*>(kv.v_pages) + tile * kTileKeys * kv.head_dim + d;
    double sum = sums[(int64_t{block} * kv.num_kv_heads + kv_head) * kv.head_dim + d];
    for (int key = 0; key < keys; ++key) {
      sum += ToFloat(v[key * kv.head_dim]);
      const int64_t row = int64_t{block} * kTileKeys + key - row_begin;
      if (row < 0 || !is_vision[row]) continue;
      means[(row * kv.num_kv_heads + kv_head) * kv.head_dim + d] =
          static_cast<float>(sum / static_cast<double>(row_begin + row + 1));
    }
  }
}

// A zero query sees equal logits: the log of their number.
__global__ void ZeroSlotsKernel(float* lse2, int num_rows) {
  const int row = blockIdx.x * kThreads + threadIdx.x;
  if (row >= num_rows) return;
  const int blocks = (num_rows + kTileKeys - 1) / kTileKeys - row / kTileKeys;
  for (int slot = kDataSlots; slot < kReleasedSlotsOnDevice; ++slot) {
    lse2[int64_t{slot} * num_rows + row] = log2f(static_cast<float>(blocks));
  }
}

struct ReleasedPlan {
  void* k_means = nullptr;
  void* v_means = nullptr;
  double* value_sums = nullptr;
  float* lse2 = nullptr;  // [64 slots, rows]
  // Partial results of text rows, running means, scores of a few rows, then partial results of
  // selected attention.
  void* shared = nullptr;
  size_t shared_bytes = 0;
  int32_t* blocks = nullptr;
  float* sum = nullptr;
  int kept = 0;
  int score_rows = 0;
  int blocks_stride = 0;
  size_t bytes = 0;

  static ReleasedPlan Of(const PagedKv& kv, int len, int selected_blocks, void* data) {
    ReleasedPlan plan;
    const size_t rows = static_cast<size_t>(len);
    plan.kept = KeptBlocks(selected_blocks);
    plan.blocks_stride = BlocksStride(len);
    plan.score_rows = ScoreRows(kKvHeads, plan.blocks_stride, len);
    const size_t means = size_t{kKvHeads} * plan.blocks_stride * kv.head_dim;
    CudaScratchCursor cursor(data);
    plan.k_means = cursor.Take<char>(means * SizeOf(kv.dtype));
    plan.v_means = cursor.Take<char>(means * SizeOf(kv.dtype));
    plan.value_sums = cursor.Take<double>(means);
    plan.lse2 = cursor.Take<float>(rows * kReleasedSlotsOnDevice);
    plan.shared_bytes = std::max(
        rows * kKvHeads * kv.head_dim * sizeof(float),
        static_cast<size_t>(plan.score_rows) * kKvHeads * plan.blocks_stride * sizeof(float));
    plan.shared_bytes =
        std::max(plan.shared_bytes, CudaDenseSplitScratchBytes(kHeads, kv.head_dim, len));
    for (const KvPass& pass : kKvPasses) {
      plan.shared_bytes = std::max(
          plan.shared_bytes,
          GatheredScratchBytes(len, len, pass.count, kSlotsPerKvHead, plan.kept, kv.head_dim));
    }
    plan.shared = cursor.Take<char>(plan.shared_bytes);
    plan.blocks = cursor.Take<int32_t>(rows * kKvHeads * plan.kept);
    plan.sum = cursor.Take<float>(rows * kHeads * kv.head_dim);
    plan.bytes = cursor.used();
    return plan;
  }
};

template <typename T>
class ReleasedPass {
 public:
  ReleasedPass(const CudaReleasedNsaParams& p, const ReleasedPlan& plan, cudaStream_t stream)
      : p_(p),
        plan_(plan),
        stream_(stream),
        rows_(p.num_rows - p.row_begin),
        is_vision_(p.is_vision + p.row_begin) {
    sum_.data = plan.sum;
    sum_.row_stride = int64_t{kHeads} * p.kv.head_dim;
    if (p.out.dtype == DType::kF32) sum_ = p.out;
  }

  cudaError_t Run() const {
    cudaError_t status = DenseText();
    if (status == cudaSuccess) status = RunningMeans();
    if (status == cudaSuccess) status = Compress();
    if (status == cudaSuccess) status = Choose();
    if (status == cudaSuccess) status = Select();
    if (status == cudaSuccess) status = Window();
    if (status == cudaSuccess && p_.tally.gate_sums != nullptr) {
      status = LaunchGateSums(p_.gates, p_.gates_stride, is_vision_, rows_, kHeads,
                              p_.tally.gate_sums, stream_);
    }
    return status;
  }

 private:
  float* Means() const { return static_cast<float*>(plan_.shared); }
  int32_t* Blocks() const { return p_.blocks != nullptr ? p_.blocks : plan_.blocks; }

  cudaError_t RunningMeans() const {
    const int num_blocks = (p_.num_rows + kTileKeys - 1) / kTileKeys;
    const int width = kKvHeads * p_.kv.head_dim;
    const dim3 grid(static_cast<unsigned>(num_blocks), kKvHeads);
    BlockSumsKernel<T><<<grid, kThreads, 0, stream_>>>(p_.kv, p_.num_rows, plan_.value_sums);
    PrefixKernel<<<static_cast<unsigned>((width + kThreads - 1) / kThreads), kThreads, 0,
                   stream_>>>(plan_.value_sums, num_blocks, width);
    const dim3 own(static_cast<unsigned>(num_blocks - p_.row_begin / kTileKeys), kKvHeads);
    RunningMeanKernel<T><<<own, kThreads, 0, stream_>>>(p_.kv, p_.num_rows, plan_.value_sums,
                                                        is_vision_, p_.row_begin, Means());
    return cudaGetLastError();
  }

  cudaError_t DenseText() const {
    CudaDensePrefillParams dense;
    dense.kv = p_.kv;
    dense.q = p_.q;
    dense.out = sum_;
    dense.skip_rows = is_vision_;
    dense.num_q_heads = kHeads;
    dense.row_begin = p_.row_begin;
    dense.row_end = p_.num_rows;
    dense.scale = p_.scale;
    dense.scratch = {plan_.shared, plan_.shared_bytes};
    return LaunchTextRows(dense, p_.text, p_.num_text, stream_);
  }

  // All rows are live: text rows have zero queries and gates of one half, which makes their
  // branches the means that the released code adds (quirks Q2, Q6, Q16).
  void Fill(PagedRows<T>& rows, int branch, const KvPass& pass) const {
    FillPages(p_.kv, rows);
    rows.q = DeviceRows(p_.q);
    rows.out = DeviceRows(sum_);
    rows.zero_unless = is_vision_;
    rows.keep = p_.is_vision;
    rows.row_begin = p_.row_begin;
    rows.row_end = p_.num_rows;
    rows.heads = HeadMap::kSlots;
    rows.num_q_heads = kHeads;
    rows.kv_first = pass.first;
    rows.kv_step = pass.step;
    rows.gates = p_.gates;
    rows.gates_stride = p_.gates_stride;
    rows.branch = branch;
    rows.factor = 0.5f;  // the mean of two copies
    rows.add = static_cast<const float*>(sum_.data);
    rows.add_stride = sum_.row_stride;
  }

  cudaError_t Compress() const {
    BlockMeans<T> means;
    means.kv = p_.kv;
    means.k = static_cast<T*>(plan_.k_means);
    means.v = static_cast<T*>(plan_.v_means);
    means.len = p_.num_rows;
    means.blocks_stride = plan_.blocks_stride;
    means.keep = p_.is_vision;
    cudaError_t status = LaunchBlockMeans(means, stream_);
    ZeroSlotsKernel<<<static_cast<unsigned>((p_.num_rows + kThreads - 1) / kThreads), kThreads, 0,
                      stream_>>>(plan_.lse2, p_.num_rows);
    for (const KvPass& pass : kKvPasses) {
      CompressedPolicy<T> policy;
      Fill(policy, 0, pass);
      policy.first_add = Means();
      policy.k_means = means.k;
      policy.v_means = means.v;
      policy.num_blocks = (p_.num_rows + kTileKeys - 1) / kTileKeys;
      policy.blocks_stride = plan_.blocks_stride;
      policy.own_and_later = true;
      policy.lse2 = plan_.lse2 + p_.row_begin;
      policy.lse_stride = p_.num_rows;
      if (status == cudaSuccess) status = LaunchCompressed(policy, pass.count, p_.scale, stream_);
    }
    return status;
  }

  cudaError_t Choose() const {
    BlockScores<T> scores;
    scores.k_means = static_cast<const T*>(plan_.k_means);
    scores.num_kv_heads = kKvHeads;
    scores.head_dim = p_.kv.head_dim;
    scores.blocks_stride = plan_.blocks_stride;
    scores.q = DeviceRows(p_.q);
    scores.num_q_heads = kHeads;
    scores.heads = HeadMap::kSlots;
    scores.zero_unless = is_vision_;
    scores.lse2 = plan_.lse2 + int64_t{kReleasedSlotsOnDevice} * p_.row_begin;
    scores.row_begin = p_.row_begin;
    scores.scale = p_.scale;
    scores.scores = static_cast<float*>(plan_.shared);
    BlockChoice choice;
    choice.scores = scores.scores;
    choice.blocks_stride = plan_.blocks_stride;
    choice.num_kv_heads = kKvHeads;
    choice.is_vision = is_vision_;
    choice.row_begin = p_.row_begin;
    choice.count = plan_.kept;
    choice.blocks = Blocks();
    choice.tally = p_.tally;
    for (int begin = 0; begin < rows_; begin += plan_.score_rows) {
      scores.begin = choice.begin = begin;
      scores.end = choice.end = std::min(rows_, begin + plan_.score_rows);
      cudaError_t status = LaunchBlockScores(scores, stream_);
      if (status == cudaSuccess) status = LaunchNetworkChoice(choice, stream_);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  }

  cudaError_t Select() const {
    for (const KvPass& pass : kKvPasses) {
      SelectedPolicy<T> policy;
      Fill(policy, 1, pass);
      policy.blocks = Blocks();
      policy.count = plan_.kept;
      const cudaError_t status = LaunchSelection(policy, pass.count, p_.scale,
                                                 {plan_.shared, plan_.shared_bytes}, stream_);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  }

  cudaError_t Window() const {
    for (const KvPass& pass : kKvPasses) {
      WindowPolicy<T> policy;
      Fill(policy, 2, pass);
      policy.last_out = DeviceRows(p_.out);
      policy.window = p_.window;
      const cudaError_t status = LaunchWindow(policy, pass.count, p_.scale, stream_);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  }

  const CudaReleasedNsaParams& p_;
  const ReleasedPlan& plan_;
  cudaStream_t stream_;
  const int rows_;                  // from row_begin on
  const uint8_t* const is_vision_;  // of these
  CudaRows sum_;
};

}  // namespace
}  // namespace cuda

size_t CudaReleasedNsaScratchBytes(const PagedKv& kv, int max_len, int selected_blocks) {
  return cuda::ReleasedPlan::Of(kv, max_len, selected_blocks, nullptr).bytes;
}

CudaStatus LaunchReleasedNsa(const CudaReleasedNsaParams& p, CudaStream stream) {
  if (p.num_rows <= p.row_begin) return cudaSuccess;
  if (!cuda::ShapeFits(p.kv, cuda::kHeads) || p.kv.num_kv_heads != cuda::kKvHeads ||
      p.selected_blocks < 1 || p.selected_blocks > 32 ||
      (p.row_begin != 0 && p.row_begin < FirstFreeReleasedRow(p.num_rows))) {
    return cudaErrorInvalidValue;
  }
  const auto plan = cuda::ReleasedPlan::Of(p.kv, p.num_rows, p.selected_blocks, p.scratch.data);
  if (plan.bytes > p.scratch.bytes) return cudaErrorInvalidValue;
  return cuda::DispatchElement(p.kv.dtype, [&](auto element) {
    return cuda::ReleasedPass<decltype(element)>(p, plan, stream).Run();
  });
}

}  // namespace videonsa
