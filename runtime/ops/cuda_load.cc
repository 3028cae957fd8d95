// Weights on their way to the GPU.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/common/bf16.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/cuda_backend.h"
#include "runtime/ops/cuda_weights.h"
#include "runtime/ops/half.h"

namespace videonsa {
namespace {

// Random weights repeat this many values.
constexpr int64_t kRandomValues = int64_t{1} << 22;

// Writes `count` values as `type`.
void Store(const float* values, int64_t count, DType type, char* out) {
  if (type == DType::kF32) {
    std::memcpy(out, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  uint16_t* target = reinterpret_cast<uint16_t*>(out);
  for (int64_t i = 0; i < count; ++i) target[i] = RoundToBf16(values[i]);
}

}  // namespace

// Rows of `from` to `to`, `row_stride` elements apart, through pinned memory.
absl::Status CudaBackend::CopyWeights(const TensorView& from, char* to, int64_t row_stride) {
  const int64_t element = static_cast<int64_t>(SizeOf(compute_type_));
  const int64_t columns = from.cols(), row_bytes = columns * element;
  const bool compact = row_stride == columns && (from.row_stride() == columns || from.rows() == 1);
  // As many whole rows as a segment holds, or pieces of one row.
  const int64_t rows_per_piece = std::max<int64_t>(1, CudaUploads::kSegmentBytes / row_bytes);
  const int64_t row_piece = std::min(columns, CudaUploads::kSegmentBytes / element);
  std::vector<float> values;
  for (int64_t row = 0; row < from.rows(); row += rows_per_piece) {
    const int64_t rows = std::min(rows_per_piece, from.rows() - row);
    const bool packed = compact && row_piece == columns;
    for (int64_t r = 0; r < (packed ? 1 : rows); ++r) {
      for (int64_t column = 0; column < columns; column += row_piece) {
        const int64_t begin = (row + r) * from.row_stride() + column;
        const int64_t count = packed ? rows * columns : std::min(row_piece, columns - column);
        char* staged = uploads_.Stage(count * element);
        if (from.dtype == compute_type_) {
          std::memcpy(staged, static_cast<const char*>(from.data) + begin * element,
                      static_cast<size_t>(count * element));
        } else {
          values.resize(static_cast<size_t>(count));
          LoadFloats(from, begin, count, values.data());
          Store(values.data(), count, compute_type_, staged);
        }
        uploads_.Send(to + ((row + r) * row_stride + column) * element, count * element);
      }
    }
  }
  return device_->status();
}

// Values uniform with deviation 0.02, the same pattern over and over.
absl::Status CudaBackend::FillRandom(char* to, int64_t bytes) {
  const int64_t element = static_cast<int64_t>(SizeOf(compute_type_));
  if (random_.data() == nullptr) {
    std::vector<float> values(static_cast<size_t>(kRandomValues));
    uint64_t state = 0x9E3779B97F4A7C15u;  // xorshift64 (Marsaglia 2003)
    for (float& value : values) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      value = (static_cast<float>(state >> 40) / 16777216.0f - 0.5f) * (0.02f * 3.4641016f);
    }
    VNSA_ASSIGN_OR_RETURN(random_, device_->Allocate(kRandomValues * element, "random weights"));
    const TensorView view = MatrixView(values.data(), DType::kF32, 1024, kRandomValues / 1024);
    VNSA_RETURN_IF_ERROR(CopyWeights(view, static_cast<char*>(random_.data()), view.cols()));
  }
  const int64_t pattern = kRandomValues * element;
  for (int64_t at = 0; at < bytes; at += pattern) {
    device_->CopyWithin(to + at, random_.data(), std::min(pattern, bytes - at));
  }
  return device_->status();
}

absl::StatusOr<std::unique_ptr<LinearWeights>> CudaBackend::Pack(absl::Span<const LinearPart> parts,
                                                                 int64_t out_features,
                                                                 int64_t in_features) {
  const int64_t element = static_cast<int64_t>(SizeOf(compute_type_));
  VNSA_ASSIGN_OR_RETURN(DeviceBuffer data,
                        device_->Allocate(out_features * in_features * element, "weights"));
  DeviceBuffer bias;
  std::vector<float> biases;
  char* to = static_cast<char*>(data.data());
  for (const LinearPart& part : parts) {
    const int64_t bytes = part.weight.rows() * in_features * element;
    if (part.weight.data == nullptr) {
      VNSA_RETURN_IF_ERROR(FillRandom(to, bytes));
    } else {
      VNSA_RETURN_IF_ERROR(CopyWeights(part.weight, to, in_features));
    }
    to += bytes;
    if (part.bias.rank == 0) continue;
    VNSA_CHECK_EQ(part.bias.num_elements(), part.weight.rows());
    const size_t old = biases.size();
    biases.resize(old + static_cast<size_t>(part.weight.rows()), 0.0f);
    if (part.bias.data != nullptr) {
      LoadFloats(part.bias, 0, part.weight.rows(), biases.data() + old);
    }
  }
  if (!biases.empty()) {
    biases.resize(static_cast<size_t>(out_features), 0.0f);
    const int64_t offset = CudaLinearWeights::BiasOffset(out_features);
    std::vector<char> both(static_cast<size_t>(offset + 2 * out_features));
    Store(biases.data(), out_features, DType::kF32, both.data());
    Store(biases.data(), out_features, DType::kBF16, both.data() + offset);
    const int64_t bytes = static_cast<int64_t>(both.size());
    VNSA_ASSIGN_OR_RETURN(bias, device_->Allocate(bytes, "bias"));
    std::memcpy(uploads_.Stage(bytes), both.data(), both.size());
    uploads_.Send(bias.data(), bytes);
  }
  VNSA_RETURN_IF_ERROR(device_->status());
  return std::make_unique<CudaLinearWeights>(out_features, in_features, std::move(data),
                                             std::move(bias));
}

absl::StatusOr<std::unique_ptr<LinearWeights>> CudaBackend::PackLinear(
    absl::Span<const LinearPart> parts) {
  VNSA_CHECK(!parts.empty());
  int64_t out_features = 0;
  for (const LinearPart& part : parts) {
    VNSA_CHECK_EQ(part.weight.cols(), parts[0].weight.cols());
    VNSA_CHECK_EQ(part.bias.rank != 0, parts[0].bias.rank != 0);
    out_features += part.weight.rows();
  }
  return Pack(parts, out_features, parts[0].weight.cols());
}

absl::StatusOr<std::unique_ptr<LinearWeights>> CudaBackend::PackPadded(const LinearPart& part,
                                                                       int64_t out_features,
                                                                       int64_t in_features) {
  VNSA_CHECK_LE(part.weight.rows(), out_features);
  VNSA_CHECK_LE(part.weight.cols(), in_features);
  return Pack({part}, out_features, in_features);
}

absl::StatusOr<VectorWeights> CudaBackend::LoadVector(const TensorView& vector) {
  const int64_t size = vector.num_elements();
  std::vector<float> values(static_cast<size_t>(size), 1.0f);
  if (vector.data != nullptr) LoadFloats(vector, 0, size, values.data());
  const int64_t bytes = size * static_cast<int64_t>(sizeof(float));
  VectorWeights weights;
  VNSA_ASSIGN_OR_RETURN(weights.buffer, device_->Allocate(bytes, "norm weights"));
  weights.view = MatrixView(weights.buffer.data(), DType::kF32, 1, size);
  std::memcpy(uploads_.Stage(bytes), values.data(), static_cast<size_t>(bytes));
  uploads_.Send(weights.buffer.data(), bytes);
  VNSA_RETURN_IF_ERROR(device_->status());
  return weights;
}

}  // namespace videonsa
