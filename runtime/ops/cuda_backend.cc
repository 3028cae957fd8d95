#include "runtime/ops/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/common/bf16.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/elementwise/cuda_elementwise.h"
#include "kernels/elementwise/cuda_matvec.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/backends.h"
#include "runtime/ops/cuda_weights.h"
#include "runtime/ops/host_sampling.h"

namespace videonsa {
namespace {

constexpr int kMarks = 16;
// Host rows converted by one task.
constexpr int64_t kRowsPerTask = 128;
// Tokens sampled in one step.
constexpr int64_t kMaxSamples = 4096;
// cudaErrorInvalidValue: a launcher has no kernel for what our own checks let through.
constexpr CudaStatus kInvalidValue = 1;

CudaConstRows ConstRowsOf(const TensorView& x) { return {x.data, x.dtype, x.row_stride()}; }
CudaRows RowsOf(const TensorView& x) { return {x.data, x.dtype, x.row_stride()}; }

CudaMatVecParams MatVecParams(const TensorView& x, const CudaLinearWeights& w,
                              const TensorView& out) {
  CudaMatVecParams params;
  params.w = w.data();
  params.w_stride = w.stride();
  params.x = ConstRowsOf(x);
  params.out = RowsOf(out);
  params.n = static_cast<int>(out.cols());
  params.k = static_cast<int>(x.cols());
  return params;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int ordinal,
                                                           std::optional<DType> compute_type) {
  return CudaBackend::Create(ordinal, compute_type.value_or(DType::kBF16));
}

absl::StatusOr<int> CountCudaBackends() { return CountCudaDevices(); }

absl::Status CheckCudaBackend(int ordinal) {
  VNSA_ASSIGN_OR_RETURN(const std::unique_ptr<CudaDevice> device, CudaDevice::Create(ordinal));
  return CublasLt::Create(*device).status();
}

std::string DescribeBackends() { return absl::StrCat("cpu; ", DescribeCudaDevices()); }

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Create(int ordinal, DType compute_type) {
  VNSA_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device, CudaDevice::Create(ordinal));
  VNSA_ASSIGN_OR_RETURN(CudaUploads uploads, CudaUploads::Create(*device));
  VNSA_ASSIGN_OR_RETURN(CudaEvents marks, CudaEvents::Create(*device, kMarks));
  std::unique_ptr<CudaBackend> backend(
      new CudaBackend(compute_type, std::move(device), std::move(uploads), std::move(marks)));
  VNSA_RETURN_IF_ERROR(backend->Setup());
  return backend;
}

CudaBackend::~CudaBackend() = default;

absl::Status CudaBackend::Setup() {
  VNSA_ASSIGN_OR_RETURN(cublas_, CublasLt::Create(*device_));
  VNSA_ASSIGN_OR_RETURN(reports_, device_->Allocate(8 * kMaxReportWords, "attention reports"));
  VNSA_ASSIGN_OR_RETURN(host_reports_, PinnedBuffer::Create(8 * kMaxReportWords));
  VNSA_ASSIGN_OR_RETURN(sampled_, device_->Allocate(8 * kMaxSamples, "sampled tokens"));
  VNSA_ASSIGN_OR_RETURN(host_sampled_, PinnedBuffer::Create(8 * kMaxSamples));
  return device_->Synchronize();
}

// A larger buffer in place of the old one, which ends after the work that uses it.
absl::Status CudaBackend::Grow(int64_t bytes, const char* what, DeviceBuffer* buffer) {
  if (static_cast<int64_t>(buffer->bytes()) >= bytes) return absl::OkStatus();
  buffer->Reset();
  VNSA_ASSIGN_OR_RETURN(*buffer, device_->Allocate(bytes, what));
  return absl::OkStatus();
}

void CudaBackend::Launched(CudaStatus status, const char* what) {
  VNSA_CHECK(status != kInvalidValue) << what << ": no kernel for these shapes";
  device_->Note(status, what);
}

absl::Status CudaBackend::ReserveSwiGlu(int64_t max_rows, int64_t width) {
  return Grow(max_rows * width * static_cast<int64_t>(SizeOf(compute_type_)), "gates of the MLP",
              &swiglu_);
}

// Steps.

void CudaBackend::BeginStep() {
  device_->Bind();
  uploads_.BeginStep();
  num_marks_ = 0;
  open_samples_.clear();
  if (report_words_ > 0) device_->Fill(reports_.data(), 0, 8 * report_words_);
  report_words_ = 0;
  open_reports_.clear();
  // Nothing is running: records for shapes and places of long ago give way.
  if (decode_records_.size() == kMaxDecodeRecords) decode_records_.clear();
}

absl::Status CudaBackend::EndStep() {
  const int64_t samples = static_cast<int64_t>(open_samples_.size());
  if (samples > 0) {
    device_->CopyOut(host_sampled_.data(), sampled_.data(), 8 * kMaxSamples);
  }
  if (report_words_ > 0) device_->CopyOut(host_reports_.data(), reports_.data(), 8 * report_words_);
  VNSA_RETURN_IF_ERROR(device_->Synchronize());
  TakeSamples();
  TakeReports();
  return absl::OkStatus();
}

const int32_t* CudaBackend::Upload(absl::Span<const int32_t> values) {
  return static_cast<const int32_t*>(
      uploads_.Keep(values.data(), static_cast<int64_t>(values.size() * sizeof(int32_t))));
}

const uint8_t* CudaBackend::Upload(absl::Span<const uint8_t> values) {
  return static_cast<const uint8_t*>(
      uploads_.Keep(values.data(), static_cast<int64_t>(values.size())));
}

const int32_t* CudaBackend::Pass(absl::Span<const int32_t> values) {
  if (values.empty()) return nullptr;
  return static_cast<const int32_t*>(
      uploads_.Pass(values.data(), static_cast<int64_t>(values.size() * sizeof(int32_t))));
}

void CudaBackend::Mark() {
  VNSA_CHECK_LT(num_marks_, kMarks);
  marks_.Record(num_marks_++);
}

absl::Duration CudaBackend::Between(int first_mark, int second_mark) const {
  return absl::Seconds(marks_.SecondsBetween(first_mark, second_mark));
}

void CudaBackend::Download(const TensorView& x, void* out) {
  VNSA_CHECK_EQ(x.rank, 2);
  const int64_t element = static_cast<int64_t>(SizeOf(x.dtype)), row_bytes = x.cols() * element;
  char* to = static_cast<char*>(out);
  if (x.row_stride() == x.cols()) {
    device_->CopyOut(to, x.data, x.rows() * row_bytes);
  } else {
    for (int64_t row = 0; row < x.rows(); ++row) {
      device_->CopyOut(to + row * row_bytes,
                       static_cast<const char*>(x.data) + row * x.row_stride() * element,
                       row_bytes);
    }
  }
  static_cast<void>(device_->Synchronize());  // a failure is told by EndStep
}

// Rows.

void CudaBackend::Embed(absl::Span<const int32_t> ids, const LinearWeights& table,
                        const TensorView& out) {
  const CudaLinearWeights& weights = CudaWeights(table);
  VNSA_CHECK_EQ(out.rows(), static_cast<int64_t>(ids.size()));
  VNSA_CHECK_EQ(out.cols(), weights.in_features());
  for (int32_t id : ids) {
    VNSA_CHECK(id >= 0 && id < weights.out_features())
        << "token " << id << " of " << weights.out_features();
  }
  CudaCopyRowsParams params;
  params.x = {weights.data(), compute_type_, weights.stride()};
  params.out = RowsOf(out);
  params.from = Pass(ids);
  params.rows = out.rows();
  params.columns = static_cast<int>(out.cols());
  Launched(LaunchCopyRows(params, device_->stream()), "embedding");
}

void CudaBackend::CopyRows(const TensorView& x, absl::Span<const int32_t> order,
                           const TensorView& out) {
  VNSA_CHECK_EQ(x.cols(), out.cols());
  VNSA_CHECK_EQ(out.rows(), order.empty() ? x.rows() : static_cast<int64_t>(order.size()));
  CudaCopyRowsParams params;
  params.x = ConstRowsOf(x);
  params.out = RowsOf(out);
  params.from = Pass(order);
  params.rows = out.rows();
  params.columns = static_cast<int>(out.cols());
  Launched(LaunchCopyRows(params, device_->stream()), "copying rows");
}

void CudaBackend::CopyHostRows(const TensorView& x, absl::Span<const int32_t> order,
                               const TensorView& out) {
  VNSA_CHECK_EQ(x.cols(), out.cols());
  VNSA_CHECK_EQ(out.row_stride(), out.cols());
  const int64_t row_bytes = out.cols() * static_cast<int64_t>(SizeOf(out.dtype));
  const int64_t piece = CudaUploads::kSegmentBytes / row_bytes;
  for (int64_t begin = 0; begin < out.rows(); begin += piece) {
    const int64_t count = std::min(piece, out.rows() - begin);
    char* staged = uploads_.Stage(count * row_bytes);
    const int64_t tasks = (count + kRowsPerTask - 1) / kRowsPerTask;
    const auto convert = [&](int64_t task, int) {
      const int64_t first = begin + task * kRowsPerTask;
      const int64_t rows = std::min(kRowsPerTask, begin + count - first);
      ConvertRows({x.f32() + (order.empty() ? first * x.row_stride() : 0), x.row_stride(),
                   order.empty() ? nullptr : order.data() + first, rows, x.cols(),
                   staged + (first - begin) * row_bytes, out.dtype, out.cols()});
    };
    host_threads_.ParallelFor(tasks, std::ref(convert));
    uploads_.Send(static_cast<char*>(out.data) + begin * row_bytes, count * row_bytes);
  }
}

void CudaBackend::RmsNorm(const TensorView& x, const VectorWeights& weight, float eps,
                          const TensorView& out) {
  VNSA_CHECK_EQ(x.rows(), out.rows());
  VNSA_CHECK_EQ(x.cols(), out.cols());
  VNSA_CHECK_EQ(x.cols(), weight.view.cols());
  Launched(LaunchRmsNorm({ConstRowsOf(x), RowsOf(out), weight.view.f32(), eps, x.rows(),
                          static_cast<int>(x.cols())},
                         device_->stream()),
           "a norm");
}

void CudaBackend::RopeAngles(const RopeAngleArgs& args, const RopeTable& table) {
  const size_t rows = static_cast<size_t>(args.rows);
  VNSA_CHECK_EQ(table.cos.rows(), args.rows);
  VNSA_CHECK_EQ(table.cos.cols(), static_cast<int64_t>(args.frequencies.size()));
  CudaRopeAnglesParams params;
  for (int axis = 0; axis < 3; ++axis) {
    if (args.positions[axis] == nullptr) continue;
    params.positions[axis] = Pass(absl::MakeConstSpan(args.positions[axis], rows));
  }
  params.frequencies = static_cast<const float*>(uploads_.Pass(
      args.frequencies.data(), static_cast<int64_t>(args.frequencies.size() * sizeof(float))));
  params.axes = Pass(absl::MakeConstSpan(args.axes.data(), args.axes.size()));
  params.cos = table.cos.f32();
  params.sin = table.sin.f32();
  params.rows = args.rows;
  params.half = static_cast<int>(args.frequencies.size());
  Launched(LaunchRopeAngles(params, device_->stream()), "rotation angles");
}

void CudaBackend::Rotate(const TensorView& x, int num_heads, int head_dim, const RopeTable& table,
                         absl::Span<const int32_t> order) {
  VNSA_CHECK_LE(int64_t{num_heads} * head_dim, x.cols());
  VNSA_CHECK_EQ(table.cos.cols(), head_dim / 2);
  VNSA_CHECK_EQ(table.cos.row_stride(), head_dim / 2);
  VNSA_CHECK_EQ(x.rows(), order.empty() ? table.cos.rows() : static_cast<int64_t>(order.size()));
  Launched(LaunchRope({RowsOf(x), table.cos.f32(), table.sin.f32(), Pass(order), x.rows(),
                       num_heads, head_dim},
                      device_->stream()),
           "rotation");
}

// Linear layers.

// Products of a few rows are bound by reading the weights, where cuBLASLt's choices fall short.
bool CudaBackend::FitsMatVec(const TensorView& x, const CudaLinearWeights& w) const {
  return x.dtype == DType::kBF16 && x.rows() <= few_rows_ && x.cols() % 8 == 0 &&
         x.row_stride() % 8 == 0 && w.stride() % 8 == 0 &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(w.data()) % 16 == 0;
}

void CudaBackend::MultiplyFew(CudaMatVecParams params, int64_t rows, const char* what) {
  const auto step = [](int64_t stride, DType type) {
    return kMaxMatVecRows * stride * static_cast<int64_t>(SizeOf(type));
  };
  for (int64_t row = 0; row < rows; row += kMaxMatVecRows) {
    params.rows = static_cast<int>(std::min<int64_t>(kMaxMatVecRows, rows - row));
    Launched(LaunchMatVec(params, device_->stream()), what);
    params.x.data =
        static_cast<const char*>(params.x.data) + step(params.x.row_stride, params.x.dtype);
    params.out.data =
        static_cast<char*>(params.out.data) + step(params.out.row_stride, params.out.dtype);
  }
}

void CudaBackend::Multiply(const TensorView& x, const LinearWeights& w, bool accumulate,
                           const TensorView& out) {
  const CudaLinearWeights& weights = CudaWeights(w);
  VNSA_CHECK(x.dtype == compute_type_);
  VNSA_CHECK_EQ(x.rows(), out.rows());
  VNSA_CHECK_EQ(x.cols(), w.in_features());
  VNSA_CHECK_EQ(out.cols(), w.out_features());
  if (FitsMatVec(x, weights)) {
    CudaMatVecParams params = MatVecParams(x, weights, out);
    params.bias = weights.bias(out.dtype);
    params.accumulate = accumulate;
    MultiplyFew(params, x.rows(), "a product of few rows");
    return;
  }
  MatMulArgs args;
  args.in_type = compute_type_;
  args.out_type = out.dtype;
  args.x = x.data;
  args.x_stride = x.row_stride();
  args.w = weights.data();
  args.w_stride = weights.stride();
  args.out = out.data;
  args.out_stride = out.row_stride();
  args.bias = weights.bias(out.dtype);
  args.rows = x.rows();
  args.n = out.cols();
  args.k = x.cols();
  args.accumulate = accumulate;
  cublas_->MatMul(args);
}

void CudaBackend::Linear(const TensorView& x, const LinearWeights& w, const TensorView& out) {
  Multiply(x, w, false, out);
}

void CudaBackend::LinearAdd(const TensorView& x, const LinearWeights& w, const TensorView& out) {
  VNSA_CHECK(out.dtype == DType::kF32);
  Multiply(x, w, true, out);
}

void CudaBackend::LinearGelu(const TensorView& x, const LinearWeights& w, const TensorView& out) {
  Multiply(x, w, false, out);  // cuBLASLt's own GELU is the tanh form
  CudaBiasActParams params;
  params.x = ConstRowsOf(out);
  params.out = RowsOf(out);
  params.unary = CudaUnary::kGelu;
  params.rows = out.rows();
  params.columns = static_cast<int>(out.cols());
  Launched(LaunchBiasAct(params, device_->stream()), "GELU");
}

void CudaBackend::LinearSwiGlu(const TensorView& x, const LinearWeights& gate,
                               const LinearWeights& up, const TensorView& out) {
  const TensorView gates = MatrixView(swiglu_.data(), compute_type_, out.rows(), out.cols());
  VNSA_CHECK_LE(gates.num_elements() * static_cast<int64_t>(SizeOf(compute_type_)),
                static_cast<int64_t>(swiglu_.bytes()))
      << "ReserveSwiGlu";
  const CudaLinearWeights &gate_weights = CudaWeights(gate), &up_weights = CudaWeights(up);
  if (FitsMatVec(x, gate_weights) && gate_weights.stride() == up_weights.stride() &&
      gate_weights.bias(out.dtype) == nullptr && up_weights.bias(out.dtype) == nullptr) {
    CudaMatVecParams params = MatVecParams(x, up_weights, out);
    params.gate = gate_weights.data();
    MultiplyFew(params, x.rows(), "SwiGLU of few rows");
    return;
  }
  Multiply(x, gate, false, gates);
  Multiply(x, up, false, out);
  Launched(LaunchSwiGlu({ConstRowsOf(gates), ConstRowsOf(out), RowsOf(out), out.rows(),
                         static_cast<int>(out.cols())},
                        device_->stream()),
           "SwiGLU");
}

// Sampling.

void CudaBackend::Sample(const TensorView& logits, absl::Span<SampleTask* const> tasks) {
  const int64_t rows = logits.rows();
  const int vocab = static_cast<int>(logits.cols());
  VNSA_CHECK_EQ(rows, static_cast<int64_t>(tasks.size()));
  const int64_t first = static_cast<int64_t>(open_samples_.size());
  VNSA_CHECK_LE(first + rows, kMaxSamples);
  std::vector<CudaSampleSettings> settings(tasks.size());
  for (size_t i = 0; i < tasks.size(); ++i) {
    SampleTask& task = *tasks[i];
    if (task.num_logprobs > 0) {
      // Alternatives are asked for rarely: the row is looked at on the host.
      host_logits_.resize(static_cast<size_t>(vocab));
      Download(logits.Rows(static_cast<int64_t>(i), 1), host_logits_.data());
      SampleOnHost(host_logits_.data(), vocab, task, sample_scratch_);
      open_samples_.push_back(nullptr);
      continue;
    }
    open_samples_.push_back(&task);
    CudaSampleSettings& own = settings[i];
    own.temperature = task.temperature;
    own.top_p = task.top_p;
    own.min_p = task.min_p;
    own.top_k = task.top_k;
    own.repetition_penalty = task.repetition_penalty;
    own.uniform = task.uniform;
    own.num_seen = static_cast<int32_t>(task.num_seen);
    own.num_suppressed = task.num_suppressed;
    own.seen = Pass({task.seen, static_cast<size_t>(task.num_seen)});
    own.suppressed = Pass({task.suppressed, static_cast<size_t>(task.num_suppressed)});
  }
  CudaSampleParams params;
  params.logits = logits.f32();
  params.logits_stride = logits.row_stride();
  params.settings = static_cast<const CudaSampleSettings*>(uploads_.Pass(
      settings.data(), static_cast<int64_t>(settings.size() * sizeof(CudaSampleSettings))));
  params.ids = static_cast<int32_t*>(sampled_.data()) + first;
  params.log_probs = static_cast<float*>(sampled_.data()) + kMaxSamples + first;
  params.num_rows = static_cast<int>(rows);
  params.vocab = vocab;
  Launched(LaunchSample(params, device_->stream()), "sampling");
}

void CudaBackend::TakeSamples() {
  const int32_t* ids = reinterpret_cast<const int32_t*>(host_sampled_.data());
  const float* logprobs = reinterpret_cast<const float*>(host_sampled_.data()) + kMaxSamples;
  for (size_t i = 0; i < open_samples_.size(); ++i) {
    if (open_samples_[i] == nullptr) continue;
    open_samples_[i]->token_id = ids[i];
    open_samples_[i]->logprob = logprobs[i];
  }
  open_samples_.clear();
}

}  // namespace videonsa
