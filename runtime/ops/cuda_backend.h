#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "kernels/common/thread_pool.h"
#include "kernels/elementwise/cuda_matvec.h"
#include "kernels/nsa/cuda_nsa.h"
#include "kernels/sampling/cuda_sampling.h"
#include "runtime/device/cuda_device.h"
#include "runtime/device/cuda_graph.h"
#include "runtime/device/cuda_uploads.h"
#include "runtime/ops/backend.h"
#include "runtime/ops/cublas_lt.h"
#include "runtime/ops/cuda_weights.h"

namespace videonsa {

/// Runs every operation on one GPU: products by cuBLASLt, the rest by the kernels of this project.
/// Needs no header of the toolkit.
///
/// Numerics: BF16: operands of products, queries, keys, values and what attention gives are bf16;
///           residual, norms, softmax, gates, logits and all sums are fp32. F32: everything fp32.
class CudaBackend : public Backend {
 public:
  /// Errors: as CreateCudaBackend (runtime/ops/backends.h).
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Create(int ordinal, DType compute_type);
  ~CudaBackend() override;

  Device& device() override { return *device_; }
  DType activation_type() const override { return compute_type_; }
  DType attention_type() const override { return compute_type_; }
  DType kv_type() const override { return compute_type_; }
  int64_t strip_rows() const override { return 8192; }
  bool Supports(AttentionSemantics semantics) const override;

  absl::StatusOr<std::unique_ptr<LinearWeights>> PackLinear(
      absl::Span<const LinearPart> parts) override;
  absl::StatusOr<std::unique_ptr<LinearWeights>> PackPadded(const LinearPart& part,
                                                            int64_t out_features,
                                                            int64_t in_features) override;
  int64_t PaddedWidth(int64_t width) const override { return (width + 63) / 64 * 64; }
  bool MakesRandomWeights() const override { return true; }
  absl::StatusOr<VectorWeights> LoadVector(const TensorView& vector) override;
  absl::Status ReserveAttention(const AttentionNeeds& needs) override;
  absl::Status ReserveVision(int max_segment_rows, int head_dim) override;
  absl::Status ReserveSwiGlu(int64_t max_rows, int64_t width) override;

  void BeginStep() override;
  absl::Status EndStep() override;
  const int32_t* Upload(absl::Span<const int32_t> values) override;
  const uint8_t* Upload(absl::Span<const uint8_t> values) override;
  void Mark() override;
  absl::Duration Between(int first_mark, int second_mark) const override;
  void Download(const TensorView& x, void* out) override;

  void Embed(absl::Span<const int32_t> ids, const LinearWeights& table,
             const TensorView& out) override;
  void CopyRows(const TensorView& x, absl::Span<const int32_t> order,
                const TensorView& out) override;
  void CopyHostRows(const TensorView& x, absl::Span<const int32_t> order,
                    const TensorView& out) override;
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
  void BeginDecode(const DecodeRows& rows) override;
  void MakeBatchInvariant(int max_rows) override { few_rows_ = max_rows; }
  void RunDecode(const DecodePlaces& places, absl::FunctionRef<void()> enqueue) override;
  DecodeStarts TakeDecodeStarts() override { return std::exchange(decode_starts_, {}); }
  void AppendDecodeKv(const PagedKv& kv, const TensorView& k, const TensorView& v) override;
  void DecodeAttention(const PagedKv& kv, const TensorView& q, const TensorView& out) override;
  void Sample(const TensorView& logits, absl::Span<SampleTask* const> tasks) override;

 private:
  // Sums that a call's kernels make on the device and that EndStep adds to a tally.
  struct Report {
    AttentionTally* tally;
    int64_t begin;  // in reports_, in 8-byte words: selected pairs, gates, then weights and mass
    int num_kv_heads;
    int num_blocks;
    bool released;
  };
  static constexpr int kHostThreads = 4;  // that convert patches
  static constexpr int64_t kMaxReportWords = int64_t{4} << 20;

  CudaBackend(DType compute_type, std::unique_ptr<CudaDevice> device, CudaUploads uploads,
              CudaEvents marks)
      : compute_type_(compute_type),
        device_(std::move(device)),
        uploads_(std::move(uploads)),
        marks_(std::move(marks)) {}
  absl::Status Setup();
  absl::Status Grow(int64_t bytes, const char* what, DeviceBuffer* buffer);
  absl::Status CopyWeights(const TensorView& from, char* to, int64_t row_stride);
  absl::Status FillRandom(char* to, int64_t bytes);
  absl::StatusOr<std::unique_ptr<LinearWeights>> Pack(absl::Span<const LinearPart> parts,
                                                      int64_t out_features, int64_t in_features);
  void Multiply(const TensorView& x, const LinearWeights& w, bool accumulate,
                const TensorView& out);
  bool FitsMatVec(const TensorView& x, const CudaLinearWeights& w) const;
  void MultiplyFew(CudaMatVecParams params, int64_t rows, const char* what);
  void Launched(CudaStatus status, const char* what);
  const int32_t* Pass(absl::Span<const int32_t> values);
  CudaNsaTally AddReport(const PrefillAttentionArgs& args, double** mass);
  void TakeReports();
  void TakeSamples();
  void Dense(const PrefillAttentionArgs& args);
  void CausalNsa(const PrefillAttentionArgs& args, const CudaNsaTally& tally);
  void ReleasedNsa(const PrefillAttentionArgs& args, const CudaNsaTally& tally);
  void Mass(const PrefillAttentionArgs& args, double* mass);

  const DType compute_type_;
  std::unique_ptr<CudaDevice> device_;
  CudaUploads uploads_;
  CudaEvents marks_;
  ThreadPool host_threads_{kHostThreads};
  int num_marks_ = 0;
  std::unique_ptr<CublasLt> cublas_;
  DeviceBuffer random_;  // pattern of random weights, made when first asked for
  DeviceBuffer attention_scratch_;
  DeviceBuffer swiglu_;
  int64_t few_rows_ = kMaxMatVecRows;  // products of so few rows take a kernel of their own

  // Of one step.
  DeviceBuffer reports_;
  PinnedBuffer host_reports_;
  int64_t report_words_ = 0;
  std::vector<Report> open_reports_;
  DeviceBuffer sampled_;  // ids, then log-probabilities
  PinnedBuffer host_sampled_;
  std::vector<SampleTask*> open_samples_;  // by place in sampled_; null: decided on the host
  std::vector<float> host_logits_;
  std::vector<int32_t> sample_scratch_;

  const int32_t* DecodeLengths() const { return static_cast<int32_t*>(decode_tables_.data()); }
  int32_t* DecodeTables() const {
    return static_cast<int32_t*>(decode_tables_.data()) + decode_capacity_;
  }

  // Decode rows as announced.
  DeviceBuffer decode_tables_;  // [capacity] lengths, then [rows, stride] pages
  int decode_capacity_ = 0;
  int64_t decode_stride_ = 0;
  int decode_seqs_ = 0;
  int decode_max_len_ = 0;  // rounded up

  // Layers of a decode step by all that their launches depend on; null: seen once, not recorded.
  using DecodeKey = std::tuple<int, int, const void*, const void*, const void*, const void*,
                               const void*, const void*, const void*>;
  static constexpr size_t kMaxDecodeRecords = 128;
  std::map<DecodeKey, std::unique_ptr<CudaGraph>> decode_records_;
  DecodeStarts decode_starts_;
};

}  // namespace videonsa
