#include "runtime/media/video_patcher.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/media/patch_writer.h"

namespace videonsa {

VideoPatcher::VideoPatcher(FrameSize source, const VisualSize& size, int64_t num_frames,
                           int piece_patches, TakePiece take)
    : source_(source),
      resize_again_(size.first != size.final),
      take_(std::move(take)),
      piece_patches_(piece_patches),
      first_(source.height, source.width, size.first.height, size.first.width),
      second_(size.first.height, size.first.width, size.final.height, size.final.width) {
  VNSA_CHECK(piece_patches > 0 && num_frames > 0);
  grid_ = {static_cast<int>((num_frames + kTemporalPatch - 1) / kTemporalPatch),
           size.final.height / kPatchSize, size.final.width / kPatchSize};
}

absl::Status VideoPatcher::AddFrame(const uint8_t* rgb) {
  first_.ResizeRounded(rgb, &first_image_);
  if (resize_again_) second_.Resize(first_image_, &second_image_);
  return Append();
}

absl::Status VideoPatcher::Append() {
  VNSA_CHECK(frames_ < int64_t{kTemporalPatch} * grid_.t);
  const int64_t per_patch = int64_t{grid_.h} * grid_.w * kPatchDim;
  const auto t = static_cast<int>(frames_ / kTemporalPatch);
  if (!piece_) {
    t_begin_ = t;
    const int count = std::min(piece_patches_, grid_.t - t_begin_);
    piece_ = std::make_shared<PatchBatch>();
    piece_->grid = {count, grid_.h, grid_.w};
    piece_->rows.resize(per_patch * count);
  }
  WritePatches(resize_again_ ? second_image_ : first_image_,
               static_cast<int>(frames_ % kTemporalPatch),
               piece_->rows.data() + per_patch * (t - t_begin_));
  ++frames_;
  if (frames_ < int64_t{kTemporalPatch} * (t_begin_ + piece_->grid.t)) return absl::OkStatus();
  return take_({grid_, t_begin_, std::exchange(piece_, nullptr)});
}

absl::Status VideoPatcher::Finish() {
  VNSA_CHECK_GT(frames_, 0);
  while (frames_ % kTemporalPatch != 0) VNSA_RETURN_IF_ERROR(Append());
  VNSA_CHECK(!piece_ && frames_ == int64_t{kTemporalPatch} * grid_.t);
  return absl::OkStatus();
}

}  // namespace videonsa
