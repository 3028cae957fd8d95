#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/step/patch_batch.h"

namespace videonsa {

/// Consecutive temporal patches of one visual; alive as long as somebody holds `owner`.
struct PatchRows {
  int t_begin = 0;
  int t_end = 0;                ///< t_begin if the source was closed
  const float* rows = nullptr;  ///< [(t_end - t_begin) * h * w, kPatchDim]
  std::shared_ptr<const PatchBatch> owner;

  bool empty() const { return t_begin == t_end; }
};

/// Where the vision tower gets the patch rows of one visual of one sequence: the grid is known from
/// the start, the rows are taken in order, once, and freed as they are taken.
///
/// Life: Begin or Close by the executor when it learns of the sequence, Take until all rows are
/// taken, Close by whoever needs no more (executor: it has the features; engine: the end).
/// Threads: all methods may be called from any thread, Take from one at a time; none waits.
class PatchSource {
 public:
  explicit PatchSource(const PatchGrid& grid) : grid_(grid) {}
  virtual ~PatchSource() = default;
  PatchSource(const PatchSource&) = delete;
  PatchSource& operator=(const PatchSource&) = delete;

  const PatchGrid& grid() const { return grid_; }

  /// The rows will be taken: whoever makes them may start. Idempotent; nothing once closed.
  virtual void Begin() = 0;

  /// Rows of [t_begin, t_end) or of a first part of it; earlier rows are given up. Empty if the
  /// source is closed. Requires: 0 <= t_begin < t_end <= t_ready.
  virtual PatchRows Take(int t_begin, int t_end) = 0;

  /// No more rows are needed: those held are freed and whoever makes more stops. Idempotent.
  virtual void Close() = 0;

  struct State {
    int t_ready = 0;      ///< Take may ask for [0, t_ready); all if closed: nobody waits for rows
    absl::Status status;  ///< not OK: no more rows will come
    // Of a source that is decoded beside the model, for the report; zero for others.
    int64_t frames_decoded = 0;
    absl::Duration decode_time, preprocess_time;
  };
  virtual State state() const = 0;

 private:
  const PatchGrid grid_;
};

/// Rows that lie in memory already. The batch may be shared with other sources.
std::shared_ptr<PatchSource> WholePatches(std::shared_ptr<const PatchBatch> patches);

}  // namespace videonsa
