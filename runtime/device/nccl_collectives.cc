// Ranks that are GPUs of one process, joined by NCCL.
#include <dlfcn.h>

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/device/collective.h"
#include "runtime/device/nccl_library.h"

namespace videonsa {
namespace {

class NcclCollectives : public CollectiveGroup {
 public:
  NcclCollectives(const NcclLibrary& nccl, const std::vector<ncclComm*>& comms) : nccl_(nccl) {
    for (size_t i = 0; i < comms.size(); ++i) {
      ranks_.push_back(std::make_unique<Rank>(*this, static_cast<int>(i),
                                              static_cast<int>(comms.size()), comms[i]));
    }
  }

  int num_ranks() const override { return static_cast<int>(ranks_.size()); }
  Collective& rank(int rank) override { return *ranks_[static_cast<size_t>(rank)]; }
  void Abort(absl::Status status) override {
    VNSA_CHECK(!status.ok());
    {
      absl::MutexLock lock(&mutex_);
      if (status_.ok()) status_ = std::move(status);
    }
    for (const auto& rank : ranks_) rank->Abort();
  }

 private:
  class Rank : public Collective {
   public:
    Rank(NcclCollectives& group, int rank, int num_ranks, ncclComm* comm)
        : Collective(rank, num_ranks), group_(group), comm_(comm) {}
    ~Rank() override {
      absl::MutexLock lock(&mutex_);
      if (comm_ != nullptr) group_.nccl_.CommDestroy(comm_);
    }

    void Attach(Device& device) override { stream_ = device.stream(); }
    void AllReduceSum(const TensorView& x) override;
    void AllGather(const TensorView& x, int64_t units) override;
    absl::Status status() override;
    // Kernels that wait for other ranks end, and nothing is enqueued any more.
    void Abort() {
      absl::MutexLock lock(&mutex_);
      if (comm_ != nullptr) group_.nccl_.CommAbort(comm_);
      comm_ = nullptr;
    }

   private:
    // Remembers a failure as the group's.
    void Note(int result, const char* what);

    NcclCollectives& group_;
    CUstream_st* stream_ = nullptr;
    absl::Mutex mutex_;  // between the rank's thread and who aborts
    ncclComm* comm_ ABSL_GUARDED_BY(mutex_);
  };

  const NcclLibrary nccl_;
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Rank>> ranks_;  // ends before the rest
};

void NcclCollectives::Rank::Note(int result, const char* what) {
  if (result == NcclLibrary::kSuccess || result == NcclLibrary::kInProgress) return;
  absl::MutexLock lock(&group_.mutex_);
  if (!group_.status_.ok()) return;
  group_.status_ = MakeError(absl::StatusCode::kUnavailable, "DEVICE_LOST",
                             absl::StrCat("rank ", rank(), " of ", num_ranks(), ": ", what, ": ",
                                          group_.nccl_.GetErrorString(result), " (", result, ")"));
}

void NcclCollectives::Rank::AllReduceSum(const TensorView& x) {
  VNSA_CHECK(x.dtype == DType::kF32) << "dtype " << static_cast<int>(x.dtype);
  VNSA_CHECK(x.row_stride() == x.cols() || x.rows() <= 1) << "a matrix with gaps";
  int result = NcclLibrary::kSuccess;
  {
    absl::MutexLock lock(&mutex_);
    if (comm_ == nullptr) return;
    result = group_.nccl_.AllReduce(x.data, x.data, static_cast<size_t>(x.num_elements()),
                                    NcclLibrary::kFloat32, NcclLibrary::kSum, comm_, stream_);
  }
  Note(result, "all-reduce");
}

// Shares may differ in size, so everybody broadcasts its own; as one operation.
void NcclCollectives::Rank::AllGather(const TensorView& x, int64_t units) {
  VNSA_CHECK(units > 0 && x.rows() % units == 0) << x.rows() << " rows in " << units << " units";
  VNSA_CHECK(x.row_stride() == x.cols() || x.rows() <= 1) << "a matrix with gaps";
  const int64_t unit_bytes = x.num_elements() / units * static_cast<int64_t>(SizeOf(x.dtype));
  int failed = NcclLibrary::kSuccess;
  const auto keep = [&](int result) {
    if (failed == NcclLibrary::kSuccess) failed = result;
  };
  {
    absl::MutexLock lock(&mutex_);
    if (comm_ == nullptr) return;
    keep(group_.nccl_.GroupStart());
    for (int root = 0; root < num_ranks(); ++root) {
      const RankShare share = ShareOf(units, root, num_ranks());
      if (share.size() == 0) continue;
      char* const rows = static_cast<char*>(x.data) + share.begin * unit_bytes;
      keep(group_.nccl_.Broadcast(rows, rows, static_cast<size_t>(share.size() * unit_bytes),
                                  NcclLibrary::kUint8, root, comm_, stream_));
    }
    keep(group_.nccl_.GroupEnd());
  }
  Note(failed, "all-gather");
}

absl::Status NcclCollectives::Rank::status() {
  int result = NcclLibrary::kSuccess;
  {
    absl::MutexLock lock(&mutex_);
    if (comm_ != nullptr && group_.nccl_.CommGetAsyncError(comm_, &result) != 0) {
      result = NcclLibrary::kInternalError;
    }
  }
  Note(result, "a collective operation");
  absl::MutexLock lock(&group_.mutex_);
  return group_.status_;
}

}  // namespace

absl::StatusOr<NcclLibrary> NcclLibrary::Load(const std::string& name) {
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  const auto missing = [&](absl::string_view why) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_LIBRARY_MISSING",
                     absl::StrCat(name, " (NCCL 2) cannot be loaded: ", why));
  };
  if (library == nullptr) {
    const char* const error = dlerror();
    return missing(error == nullptr ? "not found" : error);
  }
  NcclLibrary nccl;
  std::string lacking;
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
    if (function == nullptr) lacking = symbol;
  };
  find(nccl.CommInitAll, "ncclCommInitAll");
  find(nccl.CommDestroy, "ncclCommDestroy");
  find(nccl.CommAbort, "ncclCommAbort");
  find(nccl.CommGetAsyncError, "ncclCommGetAsyncError");
  find(nccl.AllReduce, "ncclAllReduce");
  find(nccl.Broadcast, "ncclBroadcast");
  find(nccl.GroupStart, "ncclGroupStart");
  find(nccl.GroupEnd, "ncclGroupEnd");
  find(nccl.GetErrorString, "ncclGetErrorString");
  if (!lacking.empty()) return missing(absl::StrCat("it has no ", lacking));
  return nccl;
}

absl::StatusOr<std::unique_ptr<CollectiveGroup>> CreateNcclCollectives(absl::Span<const int> gpus,
                                                                       const std::string& library) {
  VNSA_CHECK(!gpus.empty());
  VNSA_ASSIGN_OR_RETURN(const NcclLibrary nccl, NcclLibrary::Load(library));
  std::vector<ncclComm*> comms(gpus.size(), nullptr);
  if (const int result = nccl.CommInitAll(comms.data(), static_cast<int>(gpus.size()), gpus.data());
      result != NcclLibrary::kSuccess) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NCCL_FAILED",
                     absl::StrCat("NCCL cannot join ", gpus.size(),
                                  " GPUs: ", nccl.GetErrorString(result), " (", result, ")"));
  }
  return std::make_unique<NcclCollectives>(nccl, comms);
}

}  // namespace videonsa
