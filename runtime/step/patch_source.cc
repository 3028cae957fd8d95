#include "runtime/step/patch_source.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

class WholeSource final : public PatchSource {
 public:
  explicit WholeSource(std::shared_ptr<const PatchBatch> patches)
      : PatchSource(patches->grid), patches_(std::move(patches)) {
    const auto values = static_cast<int64_t>(patches_->rows.size());
    if (values == grid().num_patches() * kPatchDim) return;
    status_ = MakeError(
        absl::StatusCode::kInvalidArgument, "SEQUENCE_INVALID",
        absl::StrCat("sequence: ", values, " patch values for ", grid().num_patches(), " patches"));
  }

  void Begin() override {}

  PatchRows Take(int t_begin, int t_end) override {
    VNSA_CHECK(0 <= t_begin && t_begin < t_end && t_end <= grid().t)
        << t_begin << " to " << t_end << " of " << grid().t;
    absl::MutexLock lock(&mutex_);
    if (patches_ == nullptr) return {t_begin, t_begin, nullptr, nullptr};
    return {t_begin, t_end,
            patches_->rows.data() + int64_t{t_begin} * grid().h * grid().w * kPatchDim, patches_};
  }

  void Close() override {
    absl::MutexLock lock(&mutex_);
    patches_ = nullptr;
  }

  State state() const override {
    State state;
    state.t_ready = grid().t;
    state.status = status_;
    return state;
  }

 private:
  absl::Status status_;  // constant after creation
  mutable absl::Mutex mutex_;
  std::shared_ptr<const PatchBatch> patches_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<PatchSource> WholePatches(std::shared_ptr<const PatchBatch> patches) {
  return std::make_shared<WholeSource>(std::move(patches));
}

}  // namespace videonsa
