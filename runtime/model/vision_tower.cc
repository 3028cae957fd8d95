#include "runtime/model/vision_tower.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int kPatchValues = 3 * 2 * 14 * 14;
constexpr float kNormEps = 1e-6f;
constexpr float kTheta = 10000.0f;
// A chunk holds whole temporal patches up to this many strips, at least one patch.
constexpr int64_t kChunkStrips = 4;

}  // namespace

VisionTower::VisionTower(const VisionConfig& config, const VisionWeights& weights, Backend& backend)
    : config_(config),
      weights_(weights),
      backend_(backend),
      full_attention_(static_cast<size_t>(config.depth), false) {
  for (int layer : config.full_attention_layers) {
    if (layer < config.depth) full_attention_[static_cast<size_t>(layer)] = true;
  }
  // Half of the angles turn with y, half with x, both with the same frequencies.
  const int quarter = config.head_dim() / 4;
  for (int axis = 0; axis < 2; ++axis) {
    for (int m = 0; m < quarter; ++m) {
      frequencies_.push_back(
          1.0f / std::pow(kTheta, static_cast<float>(2 * m) / static_cast<float>(2 * quarter)));
      axes_.push_back(axis);
    }
  }
}

int64_t VisionTower::ChunkRows(int64_t rows_per_frame) const {
  const int64_t rows = kChunkStrips * backend_.strip_rows();
  return std::max(rows_per_frame, rows / rows_per_frame * rows_per_frame);
}

// Rows of the widest intermediate matrices.
int64_t VisionTower::StripRows(int64_t rows) const { return std::min(rows, backend_.strip_rows()); }

absl::Status VisionTower::Reserve(int h, int w) {
  const int64_t per_frame = int64_t{h} * w;
  const int64_t rows = ChunkRows(per_frame);
  VNSA_RETURN_IF_ERROR(backend_.ReserveVision(static_cast<int>(per_frame), config_.head_dim()));
  if (rows <= reserved_rows_) return absl::OkStatus();
  const DType type = backend_.activation_type();
  const int64_t hidden = config_.hidden_size;
  const int64_t strip = StripRows(rows);
  const int64_t inner = backend_.PaddedWidth(config_.intermediate_size);
  const int64_t bytes = Workspace::MatrixBytes(DType::kF32, rows, hidden) +
                        2 * Workspace::MatrixBytes(DType::kF32, rows, config_.head_dim() / 2) +
                        2 * Workspace::MatrixBytes(type, rows, hidden) +
                        Workspace::MatrixBytes(backend_.attention_type(), rows, 3 * hidden) +
                        Workspace::MatrixBytes(DType::kF32, rows / 4, config_.out_hidden_size) +
                        Workspace::MatrixBytes(type, strip, std::max<int64_t>(inner, kPatchValues));
  VNSA_RETURN_IF_ERROR(backend_.ReserveSwiGlu(strip, inner));
  workspace_ = Workspace();
  VNSA_ASSIGN_OR_RETURN(DeviceBuffer buffer, backend_.device().Allocate(bytes, "vision workspace"));
  workspace_ = Workspace(std::move(buffer));
  reserved_rows_ = rows;
  return absl::OkStatus();
}

void VisionTower::PlanFrame(int h, int w) {
  plan_ = FramePlan();
  const int cells_h = h / 2, cells_w = w / 2;
  const int side = config_.window_size / 28;
  for (int top = 0; top < cells_h; top += side) {
    for (int left = 0; left < cells_w; left += side) {
      plan_.windows.push_back(static_cast<int32_t>(plan_.patches.size()));
      for (int r = top; r < std::min(top + side, cells_h); ++r) {
        for (int c = left; c < std::min(left + side, cells_w); ++c) {
          const int32_t cell = r * cells_w + c;
          plan_.cells.push_back(cell);
          for (int i = 0; i < 4; ++i) {
            plan_.patches.push_back(4 * cell + i);
            plan_.y.push_back(2 * r + i / 2);
            plan_.x.push_back(2 * c + i % 2);
          }
        }
      }
    }
  }
}

void VisionTower::PlanChunk(int frames, int64_t rows_per_frame) {
  const int32_t rows = static_cast<int32_t>(rows_per_frame);
  chunk_patches_.clear();
  chunk_table_.clear();
  chunk_cells_.assign(static_cast<size_t>(frames * rows_per_frame / 4), 0);
  window_segments_.clear();
  frame_segments_.clear();
  for (int32_t frame = 0; frame < frames; ++frame) {
    for (int32_t row = 0; row < rows; ++row) {
      chunk_patches_.push_back(frame * rows + plan_.patches[static_cast<size_t>(row)]);
      chunk_table_.push_back(row);
    }
    // Inverse order: raster cell c comes from place p.
    for (int32_t place = 0; place < rows / 4; ++place) {
      chunk_cells_[static_cast<size_t>(frame * (rows / 4) +
                                       plan_.cells[static_cast<size_t>(place)])] =
          frame * (rows / 4) + place;
    }
    for (int32_t window : plan_.windows) window_segments_.push_back(frame * rows + window);
    frame_segments_.push_back(frame * rows);
  }
  window_segments_.push_back(frames * rows);
  frame_segments_.push_back(frames * rows);
}

void VisionTower::EmbedPatches(const VisionInput& input, int first_frame,
                               const TensorView& hidden) {
  const int64_t offset = first_frame * input.rows_per_frame();
  const TensorView patches = MatrixView(const_cast<float*>(input.patches) + offset * kPatchValues,
                                        DType::kF32, hidden.rows(), kPatchValues);
  const size_t used = workspace_.used();
  const int64_t strip_rows = StripRows(hidden.rows());
  const TensorView strip = workspace_.Matrix(backend_.activation_type(), strip_rows, kPatchValues);
  for (int64_t row = 0; row < hidden.rows(); row += strip_rows) {
    const int64_t count = std::min(strip_rows, hidden.rows() - row);
    backend_.CopyHostRows(
        patches, absl::MakeConstSpan(chunk_patches_.data() + row, static_cast<size_t>(count)),
        strip.Rows(0, count));
    backend_.Linear(strip.Rows(0, count), *weights_.patch_embed, hidden.Rows(row, count));
  }
  workspace_.ReleaseTo(used);
}

void VisionTower::RunBlock(int block, const TensorView& hidden, const RopeTable& table) {
  const VisionBlockWeights& w = weights_.blocks[static_cast<size_t>(block)];
  const DType type = backend_.activation_type();
  const int64_t rows = hidden.rows();
  const size_t used = workspace_.used();
  const TensorView normed = workspace_.Matrix(type, rows, config_.hidden_size);
  const TensorView attended = workspace_.Matrix(type, rows, config_.hidden_size);
  const TensorView qkv =
      workspace_.Matrix(backend_.attention_type(), rows, 3 * config_.hidden_size);
  backend_.RmsNorm(hidden, w.norm1, kNormEps, normed);
  backend_.Linear(normed, *w.qkv, qkv);
  backend_.Rotate(qkv, 2 * config_.num_heads, config_.head_dim(), table, chunk_table_);
  backend_.VisionAttention(
      {qkv, attended,
       full_attention_[static_cast<size_t>(block)] ? frame_segments_ : window_segments_,
       config_.num_heads, config_.head_dim()});
  backend_.LinearAdd(attended, *w.proj, hidden);
  backend_.RmsNorm(hidden, w.norm2, kNormEps, normed);
  const int64_t strip_rows = StripRows(rows);
  const TensorView strip = workspace_.Matrix(type, strip_rows, w.gate->out_features());
  for (int64_t row = 0; row < rows; row += strip_rows) {
    const int64_t count = std::min(strip_rows, rows - row);
    backend_.LinearSwiGlu(normed.Rows(row, count), *w.gate, *w.up, strip.Rows(0, count));
    backend_.LinearAdd(strip.Rows(0, count), *w.down, hidden.Rows(row, count));
  }
  workspace_.ReleaseTo(used);
}

void VisionTower::Merge(const TensorView& hidden, const TensorView& features) {
  const DType type = backend_.activation_type();
  const int64_t cells = hidden.rows() / 4;
  const int64_t merged = int64_t{4} * config_.hidden_size;
  const size_t used = workspace_.used();
  const TensorView normed = workspace_.Matrix(type, hidden.rows(), config_.hidden_size);
  const TensorView inner = workspace_.Matrix(type, cells, merged);
  const TensorView out = workspace_.Matrix(DType::kF32, cells, config_.out_hidden_size);
  backend_.RmsNorm(hidden, weights_.merger_norm, kNormEps, normed);
  // Four neighbouring rows side by side: the same memory with longer rows.
  backend_.LinearGelu(MatrixView(normed.data, type, cells, merged), *weights_.merger_in, inner);
  backend_.Linear(inner, *weights_.merger_out, out);
  backend_.CopyRows(out, chunk_cells_, features);
  workspace_.ReleaseTo(used);
}

bool VisionTower::Run(const VisionInput& input, const TensorView& features,
                      const std::atomic<bool>* cancelled) {
  const int64_t per_frame = input.rows_per_frame();
  VNSA_CHECK(input.h % 2 == 0 && input.w % 2 == 0) << input.h << " x " << input.w << " patches";
  VNSA_CHECK_EQ(features.rows(), input.t * per_frame / 4);
  VNSA_CHECK_LE(ChunkRows(per_frame), reserved_rows_);
  PlanFrame(input.h, input.w);
  const int chunk_frames = static_cast<int>(ChunkRows(per_frame) / per_frame);
  for (int frame = 0; frame < input.t; frame += chunk_frames) {
    const int frames = std::min(chunk_frames, input.t - frame);
    PlanChunk(frames, per_frame);
    workspace_.Reset();
    const TensorView hidden =
        workspace_.Matrix(DType::kF32, frames * per_frame, config_.hidden_size);
    const RopeTable table = {workspace_.Matrix(DType::kF32, per_frame, config_.head_dim() / 2),
                             workspace_.Matrix(DType::kF32, per_frame, config_.head_dim() / 2)};
    backend_.RopeAngles({{plan_.y.data(), plan_.x.data(), nullptr}, per_frame, frequencies_, axes_},
                        table);
    EmbedPatches(input, frame, hidden);
    for (int block = 0; block < config_.depth; ++block) {
      if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) return false;
      RunBlock(block, hidden, table);
    }
    Merge(hidden, features.Rows(frame * per_frame / 4, frames * per_frame / 4));
  }
  return true;
}

}  // namespace videonsa
