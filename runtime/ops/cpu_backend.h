#pragma once

#include <memory>
#include <vector>

#include "kernels/attention/attention_params.h"
#include "kernels/common/thread_pool.h"
#include "kernels/cpu/gemm.h"
#include "runtime/ops/backend.h"

namespace videonsa {

/// Runs every operation on a pool of threads.
///
/// Numerics: fp32 activations and sums. With BF16 the operands of linear layers and of attention
/// are rounded to bf16 and the pages hold bf16; residual, norms and softmax stay fp32.
class CpuBackend : public Backend {
 public:
  /// `compute_type` is F32 or BF16.
  CpuBackend(DType compute_type, int num_threads);
  ~CpuBackend() override;

  /// BF16 where the machine multiplies bf16 pairs, F32 elsewhere.
  static DType AutoComputeType();

  ThreadPool& pool() { return pool_; }
  Device& device() override { return device_; }
  DType activation_type() const override { return compute_type_; }
  DType attention_type() const override { return DType::kF32; }
  DType kv_type() const override { return compute_type_; }
  int64_t strip_rows() const override { return 512; }
  bool Supports(AttentionSemantics) const override { return true; }

  absl::StatusOr<std::unique_ptr<LinearWeights>> PackLinear(
      absl::Span<const LinearPart> parts) override;
  absl::StatusOr<std::unique_ptr<LinearWeights>> PackPadded(const LinearPart& part,
                                                            int64_t out_features,
                                                            int64_t in_features) override;
  int64_t PaddedWidth(int64_t width) const override { return width; }
  bool MakesRandomWeights() const override { return false; }
  absl::StatusOr<VectorWeights> LoadVector(const TensorView& vector) override;
  absl::Status ReserveAttention(const AttentionNeeds& needs) override;
  int64_t AttentionScratchBytes(const AttentionNeeds& needs) const override;
  absl::Status ReserveVision(int max_segment_rows, int head_dim) override;
  absl::Status ReserveSwiGlu(int64_t, int64_t) override { return absl::OkStatus(); }

  void BeginStep() override { marks_.clear(); }
  absl::Status EndStep() override { return absl::OkStatus(); }
  const int32_t* Upload(absl::Span<const int32_t> values) override { return values.data(); }
  const uint8_t* Upload(absl::Span<const uint8_t> values) override { return values.data(); }
  void Mark() override;
  absl::Duration Between(int first_mark, int second_mark) const override;
  void Download(const TensorView& x, void* out) override;

  void Embed(absl::Span<const int32_t> ids, const LinearWeights& table,
             const TensorView& out) override;
  void CopyRows(const TensorView& x, absl::Span<const int32_t> order,
                const TensorView& out) override;
  void CopyHostRows(const TensorView& x, absl::Span<const int32_t> order,
                    const TensorView& out) override {
    CopyRows(x, order, out);
  }
  void RmsNorm(const TensorView& x, const VectorWeights& weight, float eps,
               const TensorView& out) override;
  void Linear(const TensorView& x, const LinearWeights& w, const TensorView& out) override;
  void LinearAdd(const TensorView& x, const LinearWeights& w, const TensorView& out) override;
  void LinearGelu(const TensorView& x, const LinearWeights& w, const TensorView& out) override;
  void LinearSwiGlu(const TensorView& x, const LinearWeights& gate, const LinearWeights& up,
                    const TensorView& out) override;
  void RopeAngles(const RopeAngleArgs& args, const RopeTable& table) override;
  void Rotate(const TensorView& x, int num_heads, int head_dim, const RopeTable& table,
              absl::Span<const int32_t> order) override;
  void AppendKv(const PagedKv& kv, const TensorView& k, const TensorView& v,
                int token_begin) override;
  void VisionAttention(const VisionAttentionArgs& args) override;
  void PrefillAttention(const PrefillAttentionArgs& args) override;
  void BeginDecode(const DecodeRows& rows) override { decode_rows_ = rows; }
  void MakeBatchInvariant(int) override {}  // it is
  void RunDecode(const DecodePlaces&, absl::FunctionRef<void()> enqueue) override { enqueue(); }
  void AppendDecodeKv(const PagedKv& kv, const TensorView& k, const TensorView& v) override;
  void DecodeAttention(const PagedKv& kv, const TensorView& q, const TensorView& out) override;
  void Sample(const TensorView& logits, absl::Span<SampleTask* const> tasks) override;

 private:
  void Multiply(const TensorView& x, const LinearWeights& w, GemmEpilogue epilogue,
                const TensorView& out);
  MathType math_type() const;
  void Dense(const PrefillAttentionArgs& args);
  void Pattern(const PrefillAttentionArgs& args);
  void AddMass(const PrefillAttentionArgs& args);
  void CausalNsa(const PrefillAttentionArgs& args);
  void ReleasedNsa(const PrefillAttentionArgs& args);
  absl::Status Grow(size_t bytes, const char* what, DeviceBuffer* buffer);

  const DType compute_type_;
  CpuDevice device_;
  ThreadPool pool_;
  Gemm gemm_;
  DeviceBuffer attention_scratch_;
  DeviceBuffer vision_scratch_;
  std::vector<absl::Time> marks_;
  DecodeRows decode_rows_;
  std::vector<int32_t> sample_scratch_;
};

}  // namespace videonsa
