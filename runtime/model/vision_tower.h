#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "runtime/device/device.h"
#include "runtime/model/config.h"
#include "runtime/model/weights.h"
#include "runtime/ops/backend.h"

namespace videonsa {

/// Temporal patches of one visual.
///
/// Shapes: patches [t * h * w, 1176] fp32 on the host, rows in (t, R, C, a, b) order; h, w in
///         patches of 14 pixels, even
struct VisionInput {
  int t = 0;
  int h = 0;
  int w = 0;
  const float* patches = nullptr;

  int64_t rows_per_frame() const { return int64_t{h} * w; }
};

/// Turns patches into features for the language model: patch embedding, blocks with windowed and
/// full attention, 2 x 2 merger.
///
/// Attention never crosses a temporal patch, so a visual runs a few temporal patches at a time and
/// the result does not depend on the cut.
/// Owner: the worker thread.
/// Source: preprocess-and-model, section 5.
class VisionTower {
 public:
  /// `weights` and `backend` outlive the tower.
  VisionTower(const VisionConfig& config, const VisionWeights& weights, Backend& backend);

  /// Makes room for temporal patches of h x w patches; call before Run of a larger size than any
  /// before. Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(int h, int w);

  /// Writes features [t * h * w / 4, out_hidden] (F32 or BF16) in raster order. Returns false if
  /// `cancelled` (may be null) became true on the way; features are then incomplete.
  bool Run(const VisionInput& input, const TensorView& features,
           const std::atomic<bool>* cancelled);

 private:
  // Order and segments of one temporal patch, and their repetition over a chunk.
  struct FramePlan {
    std::vector<int32_t> cells;    // merged cell at each place of the window order
    std::vector<int32_t> patches;  // patch row at each place
    std::vector<int32_t> windows;  // first row of each window, without the last bound
    std::vector<int32_t> y, x;     // patch coordinates at each place
  };

  void PlanFrame(int h, int w);
  void PlanChunk(int frames, int64_t rows_per_frame);
  void EmbedPatches(const VisionInput& input, int first_frame, const TensorView& hidden);
  void RunBlock(int block, const TensorView& hidden, const RopeTable& table);
  void Merge(const TensorView& hidden, const TensorView& features);
  int64_t ChunkRows(int64_t rows_per_frame) const;
  int64_t StripRows(int64_t rows) const;

  const VisionConfig& config_;
  const VisionWeights& weights_;
  Backend& backend_;
  std::vector<bool> full_attention_;
  std::vector<float> frequencies_;
  std::vector<int> axes_;
  Workspace workspace_;
  int64_t reserved_rows_ = 0;
  FramePlan plan_;
  std::vector<int32_t> chunk_patches_, chunk_table_, chunk_cells_;
  std::vector<int32_t> window_segments_, frame_segments_;
};

}  // namespace videonsa
