// Ranks that are threads of one process.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/check.h"
#include "runtime/device/collective.h"

namespace videonsa {
namespace {

// Elements summed at once, on the stack.
constexpr int64_t kBlock = 2048;

class ThreadCollectives : public CollectiveGroup {
 public:
  explicit ThreadCollectives(int num_ranks) : places_(static_cast<size_t>(num_ranks)) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      ranks_.push_back(std::make_unique<Rank>(*this, rank, num_ranks));
    }
  }

  int num_ranks() const override { return static_cast<int>(ranks_.size()); }
  Collective& rank(int rank) override { return *ranks_[static_cast<size_t>(rank)]; }
  void Abort(absl::Status status) override {
    VNSA_CHECK(!status.ok());
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
  }

 private:
  // A call's matrix on one rank.
  struct Place {
    char* data = nullptr;
    int64_t bytes = 0;
  };

  class Rank : public Collective {
   public:
    Rank(ThreadCollectives& group, int rank, int num_ranks)
        : Collective(rank, num_ranks), group_(group) {}
    void AllReduceSum(const TensorView& x) override;
    void AllGather(const TensorView& x, int64_t units) override;
    absl::Status status() override {
      absl::MutexLock lock(&group_.mutex_);
      return group_.status_;
    }

   private:
    // Shows this rank's matrix to the others and waits for theirs; false once aborted.
    bool Show(const TensorView& x);

    ThreadCollectives& group_;
  };

  // Waits for all ranks. Who `may_leave` does so when the group is aborted, and is not met then.
  bool Meet(bool may_leave) {
    absl::MutexLock lock(&mutex_);
    if (may_leave && !status_.ok()) return false;
    if (++arrived_ == num_ranks()) {
      arrived_ = 0;
      ++meetings_;
      return true;
    }
    const int64_t before = meetings_;
    const auto done = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return meetings_ != before || (may_leave && !status_.ok());
    };
    mutex_.Await(absl::Condition(&done));
    return meetings_ != before;
  }

  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<Place> places_;  // of the call under way; a rank writes its own
  absl::Mutex mutex_;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t meetings_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

bool ThreadCollectives::Rank::Show(const TensorView& x) {
  VNSA_CHECK_EQ(x.rank, 2);
  VNSA_CHECK(x.row_stride() == x.cols() || x.rows() <= 1) << "a matrix with gaps";
  const int64_t bytes = x.num_elements() * static_cast<int64_t>(SizeOf(x.dtype));
  group_.places_[static_cast<size_t>(rank())] = {static_cast<char*>(x.data), bytes};
  if (!group_.Meet(true)) return false;
  for (const Place& place : group_.places_) {
    VNSA_CHECK_EQ(place.bytes, bytes) << "ranks disagree about a call";
  }
  return true;
}

// Each rank adds up its share of the elements and hands the sums to all. From the first meeting to
// the second nobody else touches a share, and nobody leaves in between.
void ThreadCollectives::Rank::AllReduceSum(const TensorView& x) {
  VNSA_CHECK(x.dtype == DType::kF32) << "dtype " << static_cast<int>(x.dtype);
  if (!Show(x)) return;
  const auto at = [&](size_t other, int64_t element) {
    return reinterpret_cast<float*>(group_.places_[other].data) + element;
  };
  const size_t ranks = group_.places_.size();
  const RankShare own = ShareOf(x.num_elements(), rank(), num_ranks());
  float sums[kBlock];
  for (int64_t begin = own.begin; begin < own.end; begin += kBlock) {
    const int64_t count = std::min(kBlock, own.end - begin);
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    std::memcpy(sums, at(0, begin), bytes);
    for (size_t other = 1; other < ranks; ++other) {
      const float* values = at(other, begin);
      for (int64_t i = 0; i < count; ++i) sums[i] += values[i];
    }
    for (size_t other = 0; other < ranks; ++other) std::memcpy(at(other, begin), sums, bytes);
  }
  group_.Meet(false);
}

void ThreadCollectives::Rank::AllGather(const TensorView& x, int64_t units) {
  VNSA_CHECK(units > 0 && x.rows() % units == 0) << x.rows() << " rows in " << units << " units";
  if (!Show(x)) return;
  const int64_t unit_bytes = group_.places_[0].bytes / units;
  for (int other = 0; other < num_ranks(); ++other) {
    if (other == rank()) continue;
    const RankShare theirs = ShareOf(units, other, num_ranks());
    if (theirs.size() == 0) continue;
    std::memcpy(static_cast<char*>(x.data) + theirs.begin * unit_bytes,
                group_.places_[static_cast<size_t>(other)].data + theirs.begin * unit_bytes,
                static_cast<size_t>(theirs.size() * unit_bytes));
  }
  group_.Meet(false);
}

}  // namespace

std::unique_ptr<CollectiveGroup> CreateThreadCollectives(int num_ranks) {
  VNSA_CHECK_GE(num_ranks, 1);
  return std::make_unique<ThreadCollectives>(num_ranks);
}

}  // namespace videonsa
