#include "kernels/attention/cuda_attention.h"
#include "kernels/common/cuda_scratch.h"
#include "kernels/nsa/nsa_stages.cuh"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kBranchCompressed = 0;
constexpr int kBranchSelected = 1;
constexpr int kBranchWindow = 2;

struct CausalPlan {
  void* k_means = nullptr;
  void* v_means = nullptr;
  float* lse2 = nullptr;
  float* top2 = nullptr;  // fp32 only
  // Scores of a few rows, partial results of selected attention, then those of text rows.
  void* shared = nullptr;
  size_t shared_bytes = 0;
  uint8_t* steep = nullptr;  // rows of the scores whose weights leave fp32
  int32_t* blocks = nullptr;
  float* sum = nullptr;  // [rows, width] of the branches so far
  int score_rows = 0;
  int blocks_stride = 0;
  size_t bytes = 0;

  static CausalPlan Of(const PagedKv& kv, int num_q_heads, int rows, int len, int selected_blocks,
                       void* data) {
    CausalPlan plan;
    const size_t count = static_cast<size_t>(rows);
    plan.blocks_stride = BlocksStride(len);
    plan.score_rows = ScoreRows(kv.num_kv_heads, plan.blocks_stride, rows);
    const size_t means = static_cast<size_t>(kv.num_kv_heads) * plan.blocks_stride * kv.head_dim;
    CudaScratchCursor cursor(data);
    plan.k_means = cursor.Take<char>(means * SizeOf(kv.dtype));
    plan.v_means = cursor.Take<char>(means * SizeOf(kv.dtype));
    plan.lse2 = cursor.Take<float>(count * num_q_heads);
    if (kv.dtype == DType::kF32) plan.top2 = cursor.Take<float>(count * num_q_heads);
    plan.shared_bytes = std::max(
        static_cast<size_t>(plan.score_rows) * kv.num_kv_heads * plan.blocks_stride * sizeof(float),
        GatheredScratchBytes(rows, len, kv.num_kv_heads, num_q_heads / kv.num_kv_heads,
                             selected_blocks, kv.head_dim));
    plan.shared_bytes =
        std::max(plan.shared_bytes, CudaDenseSplitScratchBytes(num_q_heads, kv.head_dim, len));
    plan.shared = cursor.Take<char>(plan.shared_bytes);
    plan.steep = cursor.Take<uint8_t>(static_cast<size_t>(plan.score_rows) * kv.num_kv_heads);
    plan.blocks = cursor.Take<int32_t>(count * kv.num_kv_heads * selected_blocks);
    plan.sum = cursor.Take<float>(count * num_q_heads * kv.head_dim);
    plan.bytes = cursor.used();
    return plan;
  }
};

template <typename T>
class CausalPass {
 public:
  CausalPass(const CudaCausalNsaParams& p, const CausalPlan& plan, cudaStream_t stream)
      : p_(p), plan_(plan), stream_(stream), rows_(p.row_end - p.row_begin) {
    sum_.data = plan.sum;
    sum_.row_stride = int64_t{p.num_q_heads} * p.kv.head_dim;
    if (p.out.dtype == DType::kF32) sum_ = p.out;
  }

  cudaError_t Run() const {
    cudaError_t status = Compress();
    if (status == cudaSuccess) status = Choose();
    if (status == cudaSuccess) status = Select();
    if (status == cudaSuccess) status = Window();
    if (status == cudaSuccess && p_.tally.gate_sums != nullptr) {
      status = LaunchGateSums(p_.gates, p_.gates_stride, p_.is_vision, rows_, p_.num_q_heads,
                              p_.tally.gate_sums, stream_);
    }
    return status;
  }

 private:
  // Live rows are the ones marked as vision.
  void Fill(PagedRows<T>& rows, int branch, const CudaConstRows& out, bool add) const {
    FillPages(p_.kv, rows);
    rows.q = DeviceRows(p_.q);
    rows.out = DeviceRows(out);
    rows.only = p_.is_vision;
    rows.row_begin = p_.row_begin;
    rows.row_end = p_.row_end;
    rows.num_q_heads = p_.num_q_heads;
    rows.gates = p_.gates;
    rows.gates_stride = p_.gates_stride;
    rows.branch = branch;
    if (add) rows.add = static_cast<const float*>(sum_.data);
    rows.add_stride = sum_.row_stride;
  }

  cudaError_t Compress() const {
    BlockMeans<T> means;
    means.kv = p_.kv;
    means.k = static_cast<T*>(plan_.k_means);
    means.v = static_cast<T*>(plan_.v_means);
    means.len = p_.row_end;
    means.blocks_stride = plan_.blocks_stride;
    const cudaError_t status = LaunchBlockMeans(means, stream_);
    if (status != cudaSuccess) return status;
    CompressedPolicy<T> policy;
    Fill(policy, kBranchCompressed, sum_, false);
    policy.k_means = means.k;
    policy.v_means = means.v;
    policy.num_blocks = p_.row_end / kTileKeys;
    policy.blocks_stride = plan_.blocks_stride;
    policy.lse2 = plan_.lse2;
    policy.top2 = plan_.top2;
    return LaunchCompressed(policy, p_.kv.num_kv_heads, p_.scale, stream_);
  }

  cudaError_t Choose() const {
    BlockScores<T> scores;
    scores.k_means = static_cast<const T*>(plan_.k_means);
    scores.num_kv_heads = p_.kv.num_kv_heads;
    scores.head_dim = p_.kv.head_dim;
    scores.blocks_stride = plan_.blocks_stride;
    scores.q = DeviceRows(p_.q);
    scores.num_q_heads = p_.num_q_heads;
    scores.only = p_.is_vision;
    scores.lse2 = plan_.lse2;
    scores.top2 = plan_.top2;
    scores.row_begin = p_.row_begin;
    scores.scale = p_.scale;
    scores.scores = static_cast<float*>(plan_.shared);
    BlockChoice choice;
    choice.scores = scores.scores;
    choice.blocks_stride = plan_.blocks_stride;
    choice.num_kv_heads = p_.kv.num_kv_heads;
    choice.only = p_.is_vision;
    choice.row_begin = p_.row_begin;
    choice.count = p_.selected_blocks;
    choice.blocks = Blocks();
    choice.tally = p_.tally;
    for (int begin = 0; begin < rows_; begin += plan_.score_rows) {
      scores.begin = choice.begin = begin;
      scores.end = choice.end = std::min(rows_, begin + plan_.score_rows);
      const cudaError_t status = LaunchScoredChoice(scores, choice, plan_.steep, stream_);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  }

  cudaError_t Select() const {
    SelectedPolicy<T> policy;
    Fill(policy, kBranchSelected, sum_, true);
    policy.blocks = Blocks();
    policy.count = p_.selected_blocks;
    return LaunchSelection(policy, p_.kv.num_kv_heads, p_.scale, {plan_.shared, plan_.shared_bytes},
                           stream_);
  }

  cudaError_t Window() const {
    WindowPolicy<T> policy;
    Fill(policy, kBranchWindow, p_.out, true);
    policy.window = p_.window;
    return LaunchWindow(policy, p_.kv.num_kv_heads, p_.scale, stream_);
  }

  int32_t* Blocks() const { return p_.blocks != nullptr ? p_.blocks : plan_.blocks; }

  const CudaCausalNsaParams& p_;
  const CausalPlan& plan_;
  cudaStream_t stream_;
  const int rows_;
  CudaRows sum_;
};

}  // namespace
}  // namespace cuda

size_t CudaCausalNsaScratchBytes(const PagedKv& kv, int num_q_heads, int max_rows, int max_len,
                                 int selected_blocks) {
  return cuda::CausalPlan::Of(kv, num_q_heads, max_rows, max_len, selected_blocks, nullptr).bytes;
}

CudaStatus LaunchCausalNsa(const CudaCausalNsaParams& p, CudaStream stream) {
  if (p.row_end <= p.row_begin) return cudaSuccess;
  if (!cuda::ShapeFits(p.kv, p.num_q_heads) || p.selected_blocks < 1 || p.selected_blocks > 64) {
    return cudaErrorInvalidValue;
  }
  const auto plan = cuda::CausalPlan::Of(p.kv, p.num_q_heads, p.row_end - p.row_begin, p.row_end,
                                         p.selected_blocks, p.scratch.data);
  if (plan.bytes > p.scratch.bytes) return cudaErrorInvalidValue;
  const cudaError_t status = cuda::DispatchElement(p.kv.dtype, [&](auto element) {
    return cuda::CausalPass<decltype(element)>(p, plan, stream).Run();
  });
  if (status != cudaSuccess) return status;
  CudaDensePrefillParams dense;
  dense.kv = p.kv;
  dense.q = p.q;
  dense.out = p.out;
  dense.skip_rows = p.is_vision;
  dense.num_q_heads = p.num_q_heads;
  dense.row_begin = p.row_begin;
  dense.row_end = p.row_end;
  dense.scale = p.scale;
  dense.scratch = {plan.shared, plan.shared_bytes};
  return cuda::LaunchTextRows(dense, p.text, p.num_text, stream);
}

}  // namespace videonsa
