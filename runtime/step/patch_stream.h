#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/step/patch_source.h"

namespace videonsa {

/// Rows that are decoded while the vision tower runs: a bounded buffer of pieces between one thread
/// that pushes and one that takes. A full buffer makes the pusher wait; the taker never waits,
/// because nobody takes what is not ready.
///
/// Errors: what Finish was given, in state().
class PatchStream final : public PatchSource {
 public:
  /// Called without a lock held, from whatever thread caused them; must not wait.
  struct Hooks {
    std::function<void()> begin;    ///< once, when the rows are first wanted
    std::function<void()> changed;  ///< state() says something new
  };
  /// `max_bytes`: of pieces not taken; one piece is always let in.
  PatchStream(const PatchGrid& grid, int64_t max_bytes, Hooks hooks);

  void Begin() override;
  PatchRows Take(int t_begin, int t_end) override;
  void Close() override;
  State state() const override;

  /// Adds the next piece, of temporal patches [t_begin, t_begin + piece.grid.t) of a visual that
  /// the loader found to be `whole`; waits for room.
  /// Errors: CANCELLED once closed, INVALID_ARGUMENT (MEDIA_CORRUPT) if the piece does not continue
  ///         the grid that was promised.
  absl::Status Push(const PatchGrid& whole, int t_begin, std::shared_ptr<const PatchBatch> piece);

  /// Nothing more comes. OK with rows missing is an error as of Push. First call counts.
  void Finish(absl::Status status);
  /// What the load has cost; before Finish.
  void SetCosts(int64_t frames_decoded, absl::Duration decode_time, absl::Duration preprocess_time);

  bool closed() const;
  int64_t buffered_bytes() const;

 private:
  struct Piece {
    int t_begin = 0;
    std::shared_ptr<const PatchBatch> patches;
    int t_end() const { return t_begin + patches->grid.t; }
    int64_t bytes() const;
  };
  struct Room;

  const int64_t max_bytes_;
  const Hooks hooks_;
  mutable absl::Mutex mutex_;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int t_pushed_ ABSL_GUARDED_BY(mutex_) = 0;
  State state_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
