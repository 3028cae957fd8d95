#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/device/device.h"
#include "runtime/device/tensor_view.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/sample_task.h"

/// The operations a model is written over; one implementation per kind of device.
///
/// Shapes and types are checked here once; a mismatch is our own bug (CHECK). Matrices are
/// [rows, columns] views, rows of several sequences packed one after the other.
namespace videonsa {

/// A linear layer's weights where and how the backend wants them.
class LinearWeights {
 public:
  virtual ~LinearWeights() = default;
  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }

 protected:
  LinearWeights(int64_t out_features, int64_t in_features)
      : out_features_(out_features), in_features_(in_features) {}

 private:
  const int64_t out_features_;
  const int64_t in_features_;
};

/// One matrix [out, in] and its bias [out] (rank 0: none) as a file holds them, F32, BF16 or F16,
/// any alignment. The matrix may be columns of a wider one.
struct LinearPart {
  TensorView weight;
  TensorView bias;
};

/// An fp32 vector on the device.
struct VectorWeights {
  DeviceBuffer buffer;
  TensorView view;  ///< [1, size]
};

/// Rotation angles of some rows.
///
/// Shapes: cos, sin [rows, head_dim / 2] fp32 compact
struct RopeTable {
  TensorView cos;
  TensorView sin;
};

/// Coordinates and frequencies that make a RopeTable.
///
/// Shapes: positions[axis] [rows] int32; frequencies, axes [head_dim / 2]: frequency j turns with
///         the coordinate of axis axes[j]
struct RopeAngleArgs {
  const int32_t* positions[3] = {};
  int64_t rows = 0;
  absl::Span<const float> frequencies;
  absl::Span<const int> axes;
};

/// Bidirectional attention of the vision tower inside segments of consecutive rows.
///
/// Shapes: qkv [rows, 3 * num_heads * head_dim] (q, k, v) of the attention type, out
///         [rows, num_heads * head_dim] of the activation type; segments: first row of each segment
///         and, last, the row count
struct VisionAttentionArgs {
  TensorView qkv;
  TensorView out;
  absl::Span<const int32_t> segments;
  int num_heads = 0;
  int head_dim = 0;
};

/// Matrices and KV pages lie on the backend's device; spans, and pointers where it is said, on the
/// host. A device may run behind its caller: what an operation reads on the host is read before it
/// returns, what it leaves on the host is valid after EndStep.
/// Threads: one worker thread calls everything.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device& device() = 0;
  /// Type of matrices that enter a linear layer: F32 or BF16.
  virtual DType activation_type() const = 0;
  /// Type of rows of queries, keys and values and of what attention makes of them.
  virtual DType attention_type() const = 0;
  /// Type of the K and V pages.
  virtual DType kv_type() const = 0;
  /// Rows of a linear layer that keep the device busy; wide intermediate matrices have so many.
  virtual int64_t strip_rows() const = 0;
  virtual bool Supports(AttentionSemantics semantics) const = 0;

  // Load time.

  /// Stacks the parts along the output axis and arranges them. All have one input size, and all or
  /// none a bias. Errors: RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::unique_ptr<LinearWeights>> PackLinear(
      absl::Span<const LinearPart> parts) = 0;
  /// As PackLinear for one part, with rows and columns of zeros up to the given features: matrices
  /// of a padded width are faster on some devices. Requires: features of PaddedWidth.
  virtual absl::StatusOr<std::unique_ptr<LinearWeights>> PackPadded(const LinearPart& part,
                                                                    int64_t out_features,
                                                                    int64_t in_features) = 0;
  /// Columns that an intermediate matrix of `width` columns should have.
  virtual int64_t PaddedWidth(int64_t width) const = 0;
  virtual absl::StatusOr<VectorWeights> LoadVector(const TensorView& vector) = 0;
  /// True: a view without data but with a shape asks PackLinear for random weights (and zero bias)
  /// and LoadVector for ones, made on the device.
  virtual bool MakesRandomWeights() const = 0;
  /// Makes room for attention as described, and for vision segments of this many rows.
  /// Errors: RESOURCE_EXHAUSTED.
  virtual absl::Status ReserveAttention(const AttentionNeeds& needs) = 0;
  /// Scratch that attention as described takes in all; 0 if this backend does not say.
  virtual int64_t AttentionScratchBytes(const AttentionNeeds& needs) const { return 0; }
  virtual absl::Status ReserveVision(int max_segment_rows, int head_dim) = 0;
  /// Makes room for LinearSwiGlu of so many rows and columns. Errors: RESOURCE_EXHAUSTED.
  virtual absl::Status ReserveSwiGlu(int64_t max_rows, int64_t width) = 0;

  // Steps. What Upload gave and what Sample was lent ends with the step.

  virtual void BeginStep() = 0;
  /// Waits until everything is done. UNAVAILABLE (DEVICE_LOST): no further call but destructors.
  virtual absl::Status EndStep() = 0;
  /// Where operations can read the values until the step ends: the same memory on a CPU, which must
  /// stay as it is, a copy elsewhere.
  virtual const int32_t* Upload(absl::Span<const int32_t> values) = 0;
  virtual const uint8_t* Upload(absl::Span<const uint8_t> values) = 0;
  /// Notes when everything called so far is done; marks of a step count from 0.
  virtual void Mark() = 0;
  /// Requires: the step has ended.
  virtual absl::Duration Between(int first_mark, int second_mark) const = 0;
  /// Waits for `x` and copies its rows to the host, one after the other.
  virtual void Download(const TensorView& x, void* out) = 0;

  // Step path: nothing below allocates.

  /// Row r of `out` (fp32) becomes row ids[r] of the table.
  virtual void Embed(absl::Span<const int32_t> ids, const LinearWeights& table,
                     const TensorView& out) = 0;
  /// Row r of `out` becomes row order[r] of `x` (row r without an order); types are converted.
  virtual void CopyRows(const TensorView& x, absl::Span<const int32_t> order,
                        const TensorView& out) = 0;
  /// As CopyRows with `x` on the host.
  virtual void CopyHostRows(const TensorView& x, absl::Span<const int32_t> order,
                            const TensorView& out) = 0;
  virtual void RmsNorm(const TensorView& x, const VectorWeights& weight, float eps,
                       const TensorView& out) = 0;
  /// out = x w + bias; x of the activation type, out F32 or BF16.
  virtual void Linear(const TensorView& x, const LinearWeights& w, const TensorView& out) = 0;
  /// out += x w + bias; out fp32.
  virtual void LinearAdd(const TensorView& x, const LinearWeights& w, const TensorView& out) = 0;
  /// out = gelu(x w + bias), exact erf form.
  virtual void LinearGelu(const TensorView& x, const LinearWeights& w, const TensorView& out) = 0;
  /// out = silu(x gate + bias) * (x up + bias).
  virtual void LinearSwiGlu(const TensorView& x, const LinearWeights& gate, const LinearWeights& up,
                            const TensorView& out) = 0;
  /// Fills cos and sin of frequency * coordinate.
  virtual void RopeAngles(const RopeAngleArgs& args, const RopeTable& table) = 0;
  /// Rotates the first num_heads heads of every row in place. Row r takes table row order[r], or r.
  virtual void Rotate(const TensorView& x, int num_heads, int head_dim, const RopeTable& table,
                      absl::Span<const int32_t> order) = 0;
  /// Writes rows k, v [rows, kv_size] of positions token_begin... into the pages of `kv`, whose
  /// page_ids were uploaded.
  virtual void AppendKv(const PagedKv& kv, const TensorView& k, const TensorView& v,
                        int token_begin) = 0;
  virtual void VisionAttention(const VisionAttentionArgs& args) = 0;
  /// Requires: ReserveAttention covered the sequence.
  virtual void PrefillAttention(const PrefillAttentionArgs& args) = 0;
  /// From now on a row of a product of at most `max_rows` rows depends on no other row (bitwise).
  virtual void MakeBatchInvariant(int max_rows) = 0;
  /// Says which rows the calls below mean, in all layers.
  virtual void BeginDecode(const DecodeRows& rows) = 0;
  /// Calls `enqueue`, whose calls depend on nothing but the rows announced and `places`; a device
  /// may start what they did the last time instead.
  virtual void RunDecode(const DecodePlaces& places, absl::FunctionRef<void()> enqueue) = 0;
  /// How often RunDecode was called since the last call of this; zero on devices that record
  /// nothing.
  struct DecodeStarts {
    int replayed = 0;  ///< started what was recorded
    int eager = 0;     ///< called `enqueue`
  };
  virtual DecodeStarts TakeDecodeStarts() { return {}; }
  /// Writes row r of k, v [num_seqs, kv_size] to position kv_lens[r] - 1 of sequence r.
  virtual void AppendDecodeKv(const PagedKv& kv, const TensorView& k, const TensorView& v) = 0;
  /// Attention of every row over its sequence's whole cache; q, out [num_seqs, q_size].
  virtual void DecodeAttention(const PagedKv& kv, const TensorView& q, const TensorView& out) = 0;
  /// Chooses a token from each row of `logits` [tasks, vocab] fp32, which are overwritten; the
  /// tasks' results are valid after EndStep.
  virtual void Sample(const TensorView& logits, absl::Span<SampleTask* const> tasks) = 0;
};

/// Values of a matrix of the device, one row after the other; waits for them.
std::vector<float> HostFloats(Backend& backend, const TensorView& x);

}  // namespace videonsa
