#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "kernels/cpu/resize.h"
#include "runtime/media/media_loader.h"
#include "runtime/media/visual_size.h"

namespace videonsa {

/// Turns the frames of a clip, one after another, into pieces of patch rows.
///
/// Threads: one at a time.
class VideoPatcher {
 public:
  using TakePiece = std::function<absl::Status(PatchPiece piece)>;

  /// `piece_patches`: temporal patches in a piece (the last one may have fewer).
  VideoPatcher(FrameSize source, const VisualSize& size, int64_t num_frames, int piece_patches,
               TakePiece take);

  /// Takes the next frame, packed RGB of the source size. Errors: those of `take`.
  absl::Status AddFrame(const uint8_t* rgb);
  /// Repeats the last frame if their number is odd and hands over what is left.
  absl::Status Finish();

  const PatchGrid& grid() const { return grid_; }

 private:
  absl::Status Append();

  const FrameSize source_;
  const bool resize_again_;
  const TakePiece take_;
  const int piece_patches_;
  PatchGrid grid_;
  BicubicResizer first_, second_;
  RgbxImage first_image_, second_image_;
  std::shared_ptr<PatchBatch> piece_;
  int64_t frames_ = 0;  // in all pieces, padding included
  int t_begin_ = 0;     // of piece_
};

}  // namespace videonsa
