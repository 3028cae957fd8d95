#include "runtime/step/patch_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

std::string Text(const PatchGrid& grid) {
  return absl::StrCat(grid.t, " x ", grid.h, " x ", grid.w);
}

absl::Status Changed(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_CORRUPT",
                   absl::StrCat("the clip changed between planning and decoding: ", what));
}

}  // namespace

// What a pusher waits for.
struct PatchStream::Room {
  const PatchStream* stream;
  int64_t bytes;
  static bool Has(Room* room) {
    const PatchStream& s = *room->stream;
    s.mutex_.AssertReaderHeld();
    return s.closed_ || s.pieces_.empty() || s.bytes_ + room->bytes <= s.max_bytes_;
  }
};

int64_t PatchStream::Piece::bytes() const {
  return static_cast<int64_t>(patches->rows.size() * sizeof(float));
}

PatchStream::PatchStream(const PatchGrid& grid, int64_t max_bytes, Hooks hooks)
    : PatchSource(grid), max_bytes_(max_bytes), hooks_(std::move(hooks)) {}

void PatchStream::Begin() {
  {
    absl::MutexLock lock(&mutex_);
    if (closed_ || std::exchange(begun_, true)) return;
  }
  if (hooks_.begin) hooks_.begin();
}

PatchRows PatchStream::Take(int t_begin, int t_end) {
  VNSA_CHECK(0 <= t_begin && t_begin < t_end && t_end <= grid().t)
      << t_begin << " to " << t_end << " of " << grid().t;
  absl::MutexLock lock(&mutex_);
  if (closed_) return {t_begin, t_begin, nullptr, nullptr};
  VNSA_CHECK_LE(t_end, state_.t_ready) << "rows taken before they are ready";
  while (!pieces_.empty() && pieces_.front().t_end() <= t_begin) {
    bytes_ -= pieces_.front().bytes();
    pieces_.pop_front();
  }
  VNSA_CHECK(!pieces_.empty() && pieces_.front().t_begin <= t_begin) << "rows taken twice";
  const Piece& first = pieces_.front();
  PatchRows rows;
  rows.t_begin = t_begin;
  rows.t_end = std::min(t_end, first.t_end());
  rows.rows = first.patches->rows.data() +
              int64_t{t_begin - first.t_begin} * grid().h * grid().w * kPatchDim;
  rows.owner = first.patches;
  if (rows.t_end == first.t_end()) {
    bytes_ -= first.bytes();
    pieces_.pop_front();
  }
  return rows;
}

void PatchStream::Close() {
  std::deque<Piece> dropped;  // freed without the lock
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(closed_, true)) return;
    dropped.swap(pieces_);
    bytes_ = 0;
    state_.t_ready = grid().t;
  }
  if (hooks_.changed) hooks_.changed();
}

PatchSource::State PatchStream::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

absl::Status PatchStream::Push(const PatchGrid& whole, int t_begin,
                               std::shared_ptr<const PatchBatch> piece) {
  if (!(whole == grid())) {
    return Changed(absl::StrCat("patches ", Text(whole), ", planned ", Text(grid())));
  }
  {
    absl::MutexLock lock(&mutex_);
    const PatchGrid& own = piece->grid;
    if (t_begin != t_pushed_ || own.t < 1 || own.t > grid().t - t_begin || own.h != grid().h ||
        own.w != grid().w ||
        static_cast<int64_t>(piece->rows.size()) != own.num_patches() * kPatchDim) {
      return Changed(absl::StrCat("a piece of ", Text(own), " at ", t_begin, ", ", t_pushed_,
                                  " of ", grid().t, " have come"));
    }
    Piece next{t_begin, std::move(piece)};
    Room room{this, next.bytes()};
    mutex_.Await(absl::Condition(&Room::Has, &room));
    if (closed_) {
      return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "nobody needs the clip any more");
    }
    bytes_ += next.bytes();
    t_pushed_ = next.t_end();
    // The last one waits for Finish: a load that fails at its very end fails the request.
    state_.t_ready = std::min(t_pushed_, grid().t - 1);
    pieces_.push_back(std::move(next));
  }
  if (hooks_.changed) hooks_.changed();
  return absl::OkStatus();
}

void PatchStream::Finish(absl::Status status) {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(finished_, true) || closed_) return;
    if (status.ok() && t_pushed_ < grid().t) {
      status = Changed(absl::StrCat(t_pushed_, " temporal patches, planned ", grid().t));
    }
    if (status.ok()) state_.t_ready = grid().t;
    state_.status = std::move(status);
  }
  if (hooks_.changed) hooks_.changed();
}

void PatchStream::SetCosts(int64_t frames_decoded, absl::Duration decode_time,
                           absl::Duration preprocess_time) {
  absl::MutexLock lock(&mutex_);
  state_.frames_decoded = frames_decoded;
  state_.decode_time = decode_time;
  state_.preprocess_time = preprocess_time;
}

bool PatchStream::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

int64_t PatchStream::buffered_bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace videonsa
