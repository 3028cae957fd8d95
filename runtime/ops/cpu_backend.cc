#include "runtime/ops/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/common/bf16.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/backends.h"
#include "runtime/ops/half.h"
#include "runtime/ops/host_sampling.h"

namespace videonsa {
namespace {

// Rows per task of the row-wise operations.
constexpr int64_t kRowsPerTask = 16;

class CpuLinearWeights : public LinearWeights {
 public:
  CpuLinearWeights(PackedMatrix matrix, DeviceBuffer data, DeviceBuffer bias, bool has_bias)
      : LinearWeights(matrix.n, matrix.k),
        matrix(matrix),
        has_bias_(has_bias),
        data_(std::move(data)),
        bias_(std::move(bias)) {}

  const PackedMatrix matrix;
  const float* bias() const {
    return has_bias_ ? static_cast<const float*>(bias_.data()) : nullptr;
  }

 private:
  bool has_bias_;
  DeviceBuffer data_;
  DeviceBuffer bias_;
};

const CpuLinearWeights& Cpu(const LinearWeights& weights) {
  return static_cast<const CpuLinearWeights&>(weights);
}

// Runs body(first row, number of rows) over all rows.
template <typename Body>
void ForRows(ThreadPool& pool, int64_t rows, const Body& body) {
  const auto task = [&](int64_t index, int) {
    const int64_t begin = index * kRowsPerTask;
    body(begin, std::min(kRowsPerTask, rows - begin));
  };
  pool.ParallelFor((rows + kRowsPerTask - 1) / kRowsPerTask, std::ref(task));
}

void CheckSameRows(const TensorView& a, const TensorView& b) {
  VNSA_CHECK_EQ(a.rank, 2);
  VNSA_CHECK_EQ(b.rank, 2);
  VNSA_CHECK_EQ(a.rows(), b.rows());
}

}  // namespace

CpuBackend::CpuBackend(DType compute_type, int num_threads)
    : compute_type_(compute_type), pool_(num_threads), gemm_(pool_) {
  VNSA_CHECK(compute_type == DType::kF32 || compute_type == DType::kBF16);
}

CpuBackend::~CpuBackend() = default;

DType CpuBackend::AutoComputeType() { return Gemm::MachineHasBf16() ? DType::kBF16 : DType::kF32; }

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(int num_threads,
                                                          std::optional<DType> compute_type) {
  const DType automatic = CpuBackend::AutoComputeType();
  if (compute_type == DType::kBF16 && automatic != DType::kBF16) {
    return InvalidField("compute_type", "compute_type bf16 needs a CPU with AVX512_BF16");
  }
  return std::make_unique<CpuBackend>(compute_type.value_or(automatic), num_threads);
}

absl::StatusOr<std::unique_ptr<LinearWeights>> CpuBackend::PackLinear(
    absl::Span<const LinearPart> parts) {
  VNSA_CHECK(!parts.empty());
  const bool has_bias = parts[0].bias.rank != 0;
  int64_t n = 0;
  for (const LinearPart& part : parts) {
    VNSA_CHECK_EQ(part.weight.rank, 2);
    VNSA_CHECK_EQ(part.weight.cols(), parts[0].weight.cols());
    VNSA_CHECK_EQ(part.bias.rank != 0, has_bias);
    n += part.weight.rows();
  }
  PackedMatrix matrix{compute_type_, n, parts[0].weight.cols(), nullptr};
  VNSA_ASSIGN_OR_RETURN(DeviceBuffer data,
                        device_.Allocate(PackedBytes(matrix.dtype, n, matrix.k), "weights"));
  matrix.data = data.data();
  DeviceBuffer bias;
  if (has_bias) {
    VNSA_ASSIGN_OR_RETURN(bias, device_.Allocate(n * static_cast<int64_t>(sizeof(float)), "bias"));
  }
  std::vector<std::vector<float>> rows(static_cast<size_t>(pool_.num_threads()),
                                       std::vector<float>(static_cast<size_t>(matrix.k)));
  int64_t first = 0;
  for (const LinearPart& part : parts) {
    // Panels are written by one task each: a part's first rows may share a panel with the one
    // before, which is complete by then.
    const int64_t first_panel = first / PackedMatrix::kPanel;
    const int64_t end = first + part.weight.rows();
    const auto task = [&](int64_t index, int thread) {
      const int64_t panel = first_panel + index;
      const int64_t begin_row = std::max(first, panel * PackedMatrix::kPanel);
      const int64_t end_row = std::min(end, (panel + 1) * PackedMatrix::kPanel);
      float* row = rows[static_cast<size_t>(thread)].data();
      for (int64_t r = begin_row; r < end_row; ++r) {
        LoadFloats(part.weight, (r - first) * part.weight.row_stride(), matrix.k, row);
        PackRow(matrix, r, row);
      }
    };
    pool_.ParallelFor((end - 1) / PackedMatrix::kPanel - first_panel + 1, std::ref(task));
    if (has_bias) {
      VNSA_CHECK_EQ(part.bias.num_elements(), part.weight.rows());
      LoadFloats(part.bias, 0, part.weight.rows(), static_cast<float*>(bias.data()) + first);
    }
    first = end;
  }
  gemm_.Prepare(matrix);
  return std::make_unique<CpuLinearWeights>(matrix, std::move(data), std::move(bias), has_bias);
}

absl::StatusOr<std::unique_ptr<LinearWeights>> CpuBackend::PackPadded(const LinearPart& part,
                                                                      int64_t out_features,
                                                                      int64_t in_features) {
  VNSA_CHECK_EQ(part.weight.rows(), out_features);
  VNSA_CHECK_EQ(part.weight.cols(), in_features);
  return PackLinear({part});
}

absl::StatusOr<VectorWeights> CpuBackend::LoadVector(const TensorView& vector) {
  const int64_t size = vector.num_elements();
  VectorWeights weights;
  VNSA_ASSIGN_OR_RETURN(
      weights.buffer, device_.Allocate(size * static_cast<int64_t>(sizeof(float)), "norm weights"));
  weights.view = MatrixView(weights.buffer.data(), DType::kF32, 1, size);
  LoadFloats(vector, 0, size, weights.view.f32());
  return weights;
}

absl::Status CpuBackend::Grow(size_t bytes, const char* what, DeviceBuffer* buffer) {
  if (buffer->bytes() >= bytes) return absl::OkStatus();
  VNSA_ASSIGN_OR_RETURN(*buffer, device_.Allocate(static_cast<int64_t>(bytes), what));
  return absl::OkStatus();
}

void CpuBackend::Embed(absl::Span<const int32_t> ids, const LinearWeights& table,
                       const TensorView& out) {
  const PackedMatrix& matrix = Cpu(table).matrix;
  VNSA_CHECK_EQ(out.rows(), static_cast<int64_t>(ids.size()));
  VNSA_CHECK_EQ(out.cols(), matrix.k);
  ForRows(pool_, out.rows(), [&](int64_t begin, int64_t count) {
    for (int64_t row = begin; row < begin + count; ++row) {
      const int32_t id = ids[static_cast<size_t>(row)];
      VNSA_CHECK(id >= 0 && id < matrix.n) << "token " << id << " of " << matrix.n;
      UnpackRow(matrix, id, out.f32() + row * out.row_stride());
    }
  });
}

void CpuBackend::CopyRows(const TensorView& x, absl::Span<const int32_t> order,
                          const TensorView& out) {
  VNSA_CHECK_EQ(x.cols(), out.cols());
  if (order.empty()) {
    CheckSameRows(x, out);
  } else {
    VNSA_CHECK_EQ(out.rows(), static_cast<int64_t>(order.size()));
  }
  if (x.dtype == DType::kBF16) {
    VNSA_CHECK(out.dtype == DType::kF32);
    ForRows(pool_, out.rows(), [&](int64_t begin, int64_t count) {
      for (int64_t row = begin; row < begin + count; ++row) {
        const int64_t from = order.empty() ? row : order[static_cast<size_t>(row)];
        const uint16_t* source = x.As<uint16_t>() + from * x.row_stride();
        float* target = out.f32() + row * out.row_stride();
        for (int64_t column = 0; column < x.cols(); ++column) {
          target[column] = FromBf16(source[column]);
        }
      }
    });
    return;
  }
  ForRows(pool_, out.rows(), [&](int64_t begin, int64_t count) {
    const TensorView part = out.Rows(begin, count);
    ConvertRows({x.f32() + (order.empty() ? begin * x.row_stride() : 0), x.row_stride(),
                 order.empty() ? nullptr : order.data() + begin, count, x.cols(), part.data,
                 part.dtype, part.row_stride()});
  });
}

void CpuBackend::RmsNorm(const TensorView& x, const VectorWeights& weight, float eps,
                         const TensorView& out) {
  CheckSameRows(x, out);
  VNSA_CHECK_EQ(x.cols(), weight.view.cols());
  VNSA_CHECK_EQ(x.cols(), out.cols());
  ForRows(pool_, x.rows(), [&](int64_t begin, int64_t count) {
    const TensorView part = out.Rows(begin, count);
    videonsa::RmsNorm({x.f32() + begin * x.row_stride(), x.row_stride(), weight.view.f32(), eps,
                       count, x.cols(), part.data, part.dtype, part.row_stride()});
  });
}

void CpuBackend::Multiply(const TensorView& x, const LinearWeights& w, GemmEpilogue epilogue,
                          const TensorView& out) {
  CheckSameRows(x, out);
  VNSA_CHECK(x.dtype == compute_type_);
  VNSA_CHECK_EQ(x.cols(), w.in_features());
  VNSA_CHECK_EQ(out.cols(), w.out_features());
  gemm_.Run(GemmParams{x.data, x.row_stride(), x.rows(), Cpu(w).matrix, Cpu(w).bias(), epilogue,
                       out.data, out.dtype, out.row_stride()});
}

void CpuBackend::Linear(const TensorView& x, const LinearWeights& w, const TensorView& out) {
  Multiply(x, w, GemmEpilogue::kStore, out);
}

void CpuBackend::LinearAdd(const TensorView& x, const LinearWeights& w, const TensorView& out) {
  VNSA_CHECK(out.dtype == DType::kF32);
  Multiply(x, w, GemmEpilogue::kAdd, out);
}

void CpuBackend::LinearGelu(const TensorView& x, const LinearWeights& w, const TensorView& out) {
  Multiply(x, w, GemmEpilogue::kGelu, out);
}

void CpuBackend::LinearSwiGlu(const TensorView& x, const LinearWeights& gate,
                              const LinearWeights& up, const TensorView& out) {
  CheckSameRows(x, out);
  VNSA_CHECK(x.dtype == compute_type_);
  VNSA_CHECK_EQ(x.cols(), gate.in_features());
  VNSA_CHECK_EQ(gate.in_features(), up.in_features());
  VNSA_CHECK_EQ(gate.out_features(), up.out_features());
  VNSA_CHECK_EQ(out.cols(), gate.out_features());
  gemm_.Run(SwiGluParams{x.data, x.row_stride(), x.rows(), Cpu(gate).matrix, Cpu(up).matrix,
                         Cpu(gate).bias(), Cpu(up).bias(), out.data, out.dtype, out.row_stride()});
}

void CpuBackend::RopeAngles(const RopeAngleArgs& args, const RopeTable& table) {
  const int64_t half = static_cast<int64_t>(args.frequencies.size());
  VNSA_CHECK_EQ(args.axes.size(), args.frequencies.size());
  VNSA_CHECK_EQ(table.cos.cols(), half);
  VNSA_CHECK_EQ(table.cos.rows(), args.rows);
  VNSA_CHECK_EQ(table.sin.rows(), args.rows);
  ForRows(pool_, args.rows, [&](int64_t begin, int64_t count) {
    for (int64_t row = begin; row < begin + count; ++row) {
      for (int64_t j = 0; j < half; ++j) {
        const size_t at = static_cast<size_t>(j);
        const float angle =
            args.frequencies[at] * static_cast<float>(args.positions[args.axes[at]][row]);
        table.cos.f32()[row * half + j] = std::cos(angle);
        table.sin.f32()[row * half + j] = std::sin(angle);
      }
    }
  });
}

void CpuBackend::Rotate(const TensorView& x, int num_heads, int head_dim, const RopeTable& table,
                        absl::Span<const int32_t> order) {
  VNSA_CHECK_LE(int64_t{num_heads} * head_dim, x.cols());
  VNSA_CHECK_EQ(table.cos.cols(), head_dim / 2);
  VNSA_CHECK_EQ(table.cos.row_stride(), head_dim / 2);
  VNSA_CHECK_EQ(x.rows(), order.empty() ? table.cos.rows() : static_cast<int64_t>(order.size()));
  ForRows(pool_, x.rows(), [&](int64_t begin, int64_t count) {
    const int64_t offset = order.empty() ? begin * (head_dim / 2) : 0;
    Rope({x.f32() + begin * x.row_stride(), x.row_stride(), table.cos.f32() + offset,
          table.sin.f32() + offset, order.empty() ? nullptr : order.data() + begin, count,
          num_heads, head_dim});
  });
}

void CpuBackend::Sample(const TensorView& logits, absl::Span<SampleTask* const> tasks) {
  VNSA_CHECK_EQ(logits.rows(), static_cast<int64_t>(tasks.size()));
  for (int64_t row = 0; row < logits.rows(); ++row) {
    SampleOnHost(logits.f32() + row * logits.row_stride(), static_cast<int>(logits.cols()),
                 *tasks[static_cast<size_t>(row)], sample_scratch_);
  }
}

void CpuBackend::Mark() { marks_.push_back(absl::Now()); }

absl::Duration CpuBackend::Between(int first_mark, int second_mark) const {
  return marks_[static_cast<size_t>(second_mark)] - marks_[static_cast<size_t>(first_mark)];
}

void CpuBackend::Download(const TensorView& x, void* out) {
  VNSA_CHECK_EQ(x.rank, 2);
  const size_t element = SizeOf(x.dtype), row_bytes = static_cast<size_t>(x.cols()) * element;
  for (int64_t row = 0; row < x.rows(); ++row) {
    std::memcpy(
        static_cast<char*>(out) + static_cast<size_t>(row) * row_bytes,
        static_cast<const char*>(x.data) + static_cast<size_t>(row * x.row_stride()) * element,
        row_bytes);
  }
}

}  // namespace videonsa
