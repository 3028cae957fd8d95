#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/device/device.h"
#include "runtime/device/tensor_view.h"

/// How devices that share one model put their results together.
namespace videonsa {

/// What one rank has of something countable.
struct RankShare {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
};

/// Shares lie one after the other in the order of the ranks and differ by one at most.
inline RankShare ShareOf(int64_t total, int rank, int num_ranks) {
  return {total * rank / num_ranks, total * (rank + 1) / num_ranks};
}

/// One rank's end of a group.
///
/// All ranks make the same calls in the same order, with matrices of the same shape; each call
/// takes effect when the last rank has made it. On a device the calls are enqueued behind what was
/// enqueued before, and may be recorded. Nothing allocates.
/// Threads: one thread a rank. Lifetime: the group's.
class Collective {
 public:
  virtual ~Collective() = default;
  int rank() const { return rank_; }
  int num_ranks() const { return num_ranks_; }

  /// Matrices lie on `device` from now on, which outlives the calls.
  virtual void Attach(Device& device) {}
  /// Every rank's `x` becomes the sum of all of them.
  ///
  /// Shapes:   x [rows, cols] fp32, compact
  /// Numerics: bit for bit alike on all ranks; threads add in the order of the ranks, NCCL in an
  ///           order that machine and shape decide.
  virtual void AllReduceSum(const TensorView& x) = 0;
  /// Every rank gets the rows of all: `units` groups of rows lie one after the other, and a rank
  /// brings ShareOf(units) of them.
  ///
  /// Shapes: x [rows, cols] of any type, compact; rows a multiple of units
  virtual void AllGather(const TensorView& x, int64_t units) = 0;
  /// OK, or why nothing is done any more. After a failure, calls return at once, and matrices hold
  /// garbage.
  virtual absl::Status status() = 0;

 protected:
  Collective(int rank, int num_ranks) : rank_(rank), num_ranks_(num_ranks) {}

 private:
  const int rank_;
  const int num_ranks_;
};

/// All ranks of one model, in one process.
class CollectiveGroup {
 public:
  virtual ~CollectiveGroup() = default;
  virtual int num_ranks() const = 0;
  virtual Collective& rank(int rank) = 0;
  /// Ends all calls that wait and all that will come. The first status stays.
  /// Requires: `status` is not OK. Threads: any.
  virtual void Abort(absl::Status status) = 0;
};

/// Ranks are threads that see each other's matrices. A matrix stays where it is until every rank
/// has returned from the step in which it was used, also after a failure.
std::unique_ptr<CollectiveGroup> CreateThreadCollectives(int num_ranks);

/// Ranks are GPUs of this machine, joined by NCCL, which is loaded from `library` when first asked
/// for. Records of steps (CudaGraph) end before the group.
///
/// Errors: FAILED_PRECONDITION (CUDA_LIBRARY_MISSING, NCCL_FAILED) with what NCCL says.
absl::StatusOr<std::unique_ptr<CollectiveGroup>> CreateNcclCollectives(
    absl::Span<const int> gpus, const std::string& library = "libnccl.so.2");

}  // namespace videonsa
