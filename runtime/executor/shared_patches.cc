#include "runtime/executor/shared_patches.h"

#include <algorithm>
#include <utility>

namespace videonsa {

class SharedPatches::RankPatches final : public PatchSource {
 public:
  explicit RankPatches(std::shared_ptr<SharedPatches> shared)
      : PatchSource(shared->source_->grid()), shared_(std::move(shared)) {}
  void Begin() override { shared_->source_->Begin(); }
  PatchRows Take(int t_begin, int t_end) override { return shared_->Take(t_begin, t_end); }
  void Close() override { shared_->source_->Close(); }
  State state() const override { return shared_->source_->state(); }

 private:
  const std::shared_ptr<SharedPatches> shared_;
};

std::shared_ptr<PatchSource> SharedPatches::ForRank() {
  return std::make_shared<RankPatches>(shared_from_this());
}

PatchRows SharedPatches::Take(int t_begin, int t_end) {
  {
    absl::MutexLock lock(&mutex_);
    const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !taking_; };
    mutex_.Await(absl::Condition(&free));
    const auto piece = std::find_if(pieces_.begin(), pieces_.end(),
                                    [&](const Piece& own) { return own.rows.t_begin == t_begin; });
    if (piece != pieces_.end()) {
      PatchRows rows = piece->rows;
      if (--piece->left == 0) pieces_.erase(piece);
      return rows;
    }
    if (closed_) return {t_begin, t_begin, nullptr, nullptr};
    taking_ = true;
  }
  PatchRows rows = source_->Take(t_begin, t_end);  // without the lock: it has one of its own
  absl::MutexLock lock(&mutex_);
  taking_ = false;
  closed_ = rows.empty();
  if (num_ranks_ > 1) pieces_.push_back({rows, num_ranks_ - 1});
  return rows;
}

}  // namespace videonsa
