#pragma once

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "runtime/step/patch_source.h"

namespace videonsa {

/// One visual's source, taken once and given to several ranks: what a rank is told to take, all
/// take, also when the source is closed in between.
///
/// Threads: any. Lifetime: shared with the ranks' sources.
class SharedPatches : public std::enable_shared_from_this<SharedPatches> {
 public:
  SharedPatches(std::shared_ptr<PatchSource> source, int num_ranks)
      : source_(std::move(source)), num_ranks_(num_ranks) {}

  /// The source as one rank sees it. Each rank takes all rows once, in equal calls.
  std::shared_ptr<PatchSource> ForRank();

 private:
  class RankPatches;
  struct Piece {
    PatchRows rows;
    int left = 0;  // ranks that will still take it
  };

  PatchRows Take(int t_begin, int t_end);

  const std::shared_ptr<PatchSource> source_;
  const int num_ranks_;
  absl::Mutex mutex_;
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mutex_);
  bool taking_ ABSL_GUARDED_BY(mutex_) = false;  // one rank asks the source
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  // as one rank was told
};

}  // namespace videonsa
