#include "tests/golden/model_case.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"

namespace videonsa::golden {
namespace {

constexpr float kMean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
constexpr float kStddev[3] = {0.26862954f, 0.26130258f, 0.27577711f};

// RGB frames [t][3][h][w], 0..255.
struct Frames {
  int t = 0, h = 0, w = 0;
  std::vector<uint8_t> values;
};

// Normalised rows of frames, an odd last frame repeated (an image is one frame).
std::vector<float> PatchRows(const Frames& frames) {
  const int groups = (frames.t + 1) / 2, cells_h = frames.h / 28, cells_w = frames.w / 28;
  std::vector<float> rows;
  rows.reserve(static_cast<size_t>(groups) * static_cast<size_t>(frames.h / 14) *
               static_cast<size_t>(frames.w / 14) * kPatchDim);
  for (int group = 0; group < groups; ++group) {
    for (int cell = 0; cell < cells_h * cells_w; ++cell) {
      for (int patch = 0; patch < 4; ++patch) {
        const int top = (cell / cells_w * 2 + patch / 2) * 14;
        const int left = (cell % cells_w * 2 + patch % 2) * 14;
        for (int channel = 0; channel < 3; ++channel) {
          const float mean = kMean[channel] * 255.0f, deviation = kStddev[channel] * 255.0f;
          for (int k = 0; k < 2; ++k) {
            const int frame = std::min(2 * group + k, frames.t - 1);
            for (int y = top; y < top + 14; ++y) {
              const size_t at = static_cast<size_t>(
                  ((int64_t{frame} * 3 + channel) * frames.h + y) * frames.w + left);
              for (size_t x = 0; x < 14; ++x) {
                rows.push_back((static_cast<float>(frames.values[at + x]) - mean) / deviation);
              }
            }
          }
        }
      }
    }
  }
  return rows;
}

Frames FramesOf(const GoldenTensor& tensor) {
  return {static_cast<int>(tensor.shape[0]), static_cast<int>(tensor.shape[2]),
          static_cast<int>(tensor.shape[3]), tensor.bytes};
}

// The pattern that the goldens' README gives for synthetic clips.
Frames SyntheticFrames(const nlohmann::json& spec) {
  Frames frames{spec["T"].get<int>(), spec["H"].get<int>(), spec["W"].get<int>(), {}};
  const int64_t seed = spec["seed"].get<int64_t>();
  for (int64_t t = 0; t < frames.t; ++t) {
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < frames.h; ++y) {
        for (int64_t x = 0; x < frames.w; ++x) {
          frames.values.push_back(
              static_cast<uint8_t>((7 * x + 13 * y + 29 * t + 53 * c + ((x * y) >> 3) +
                                    ((x * x + 3 * y * y) >> (4 + seed % 3)) + 17 * seed) &
                                   255));
        }
      }
    }
  }
  return frames;
}

absl::Status Missing(const GoldenCase& golden, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(golden.name, ": ", what));
}

absl::Status CheckHash(const GoldenCase& golden, const char* key, const std::vector<float>& rows) {
  if (!golden.json.contains(key)) return absl::OkStatus();
  const absl::string_view bytes(reinterpret_cast<const char*>(rows.data()),
                                rows.size() * sizeof(float));
  if (HexOf(Sha256Of(bytes)) != golden.json[key].get<std::string>()) {
    return Missing(golden, absl::StrCat("pixel rows differ from ", key));
  }
  return absl::OkStatus();
}

// Patch rows of all videos, one after the other.
absl::StatusOr<std::vector<float>> VideoRows(const GoldenCase& golden,
                                             const std::vector<GoldenCase>& siblings) {
  if (const GoldenTensor* stored = golden.Find("pixel_values_videos")) return stored->Floats();
  std::vector<float> rows;
  if (golden.json.contains("synthetic_frames")) {
    rows = PatchRows(SyntheticFrames(golden.json["synthetic_frames"]));
  } else if (const GoldenTensor* frames = golden.Find("frames_u8")) {
    rows = PatchRows(FramesOf(*frames));
  } else if (golden.Find("frames_u8_video0") != nullptr) {
    for (int video = 0;; ++video) {
      const GoldenTensor* part = golden.Find(absl::StrCat("frames_u8_video", video));
      if (part == nullptr) break;
      const std::vector<float> more = PatchRows(FramesOf(*part));
      rows.insert(rows.end(), more.begin(), more.end());
    }
  } else {
    for (const GoldenCase& other : siblings) {
      const GoldenTensor* frames = other.Find("frames_u8");
      if (frames != nullptr && golden.json.contains("pixel_values_fp32_sha256") &&
          other.json.value("pixel_values_fp32_sha256", "") ==
              golden.json["pixel_values_fp32_sha256"].get<std::string>()) {
        rows = PatchRows(FramesOf(*frames));
      }
    }
    if (rows.empty()) return Missing(golden, "no frames for its videos");
  }
  for (const char* key : {"pixel_values_fp32_sha256", "pixel_values_videos_sha256"}) {
    VNSA_RETURN_IF_ERROR(CheckHash(golden, key, rows));
  }
  return rows;
}

absl::StatusOr<std::vector<float>> ImageRows(const GoldenCase& golden) {
  if (const GoldenTensor* stored = golden.Find("pixel_values")) return stored->Floats();
  std::vector<float> rows;
  for (int image = 0;; ++image) {
    const GoldenTensor* part = golden.Find(absl::StrCat("frame_u8_image", image));
    if (part == nullptr) break;
    const std::vector<float> more = PatchRows(FramesOf(*part));
    rows.insert(rows.end(), more.begin(), more.end());
  }
  if (rows.empty()) return Missing(golden, "no frames for its images");
  VNSA_RETURN_IF_ERROR(CheckHash(golden, "pixel_values_sha256", rows));
  return rows;
}

std::vector<int32_t> Narrow(const std::vector<int64_t>& values) {
  return std::vector<int32_t>(values.begin(), values.end());
}

// Appends the next visual of its kind and the span that it fills.
struct VisualList {
  std::vector<PatchGrid> grids;
  std::vector<float> rows;
  size_t next = 0;
  size_t next_row = 0;
  bool image = false;

  absl::Status Take(const GoldenCase& golden, int token_begin, SequenceSpec* spec) {
    if (next >= grids.size()) return Missing(golden, "more pad runs than grids");
    auto batch = std::make_shared<PatchBatch>();
    batch->image = image;
    batch->grid = grids[next++];
    const size_t count = static_cast<size_t>(batch->grid.num_patches()) * kPatchDim;
    if (next_row + count > rows.size()) return Missing(golden, "fewer pixel rows than its grids");
    batch->rows.assign(rows.begin() + static_cast<std::ptrdiff_t>(next_row),
                       rows.begin() + static_cast<std::ptrdiff_t>(next_row + count));
    next_row += count;
    spec->vision_spans.push_back({token_begin, static_cast<int>(batch->grid.num_tokens()),
                                  static_cast<int>(spec->visuals.size())});
    spec->visuals.push_back(WholePatches(std::move(batch)));
    return absl::OkStatus();
  }
};

}  // namespace

std::vector<PatchGrid> GridsOf(const GoldenCase& golden, const char* tensor) {
  std::vector<PatchGrid> grids;
  const GoldenTensor* stored = golden.Find(tensor);
  if (stored == nullptr) return grids;
  const std::vector<int64_t> values = stored->Integers();
  for (size_t i = 0; i + 2 < values.size(); i += 3) {
    grids.push_back({static_cast<int>(values[i]), static_cast<int>(values[i + 1]),
                     static_cast<int>(values[i + 2])});
  }
  return grids;
}

absl::StatusOr<SequenceSpec> SpecOfCase(const GoldenCase& golden,
                                        const std::vector<GoldenCase>& siblings, PadIds pads) {
  const GoldenTensor* ids = golden.Find("input_ids");
  const GoldenTensor* positions = golden.Find("position_ids");
  if (ids == nullptr || positions == nullptr) return Missing(golden, "no ids or positions");
  SequenceSpec spec;
  spec.token_ids = Narrow(ids->Integers());
  spec.positions = Narrow(positions->Integers());
  spec.next_position = *std::max_element(spec.positions.begin(), spec.positions.end()) + 1;
  VisualList videos{GridsOf(golden, "video_grid_thw"), {}, 0, 0, false};
  VisualList images{GridsOf(golden, "image_grid_thw"), {}, 0, 0, true};
  if (!videos.grids.empty()) {
    VNSA_ASSIGN_OR_RETURN(videos.rows, VideoRows(golden, siblings));
  }
  if (!images.grids.empty()) {
    VNSA_ASSIGN_OR_RETURN(images.rows, ImageRows(golden));
  }
  for (size_t i = 0; i < spec.token_ids.size(); ++i) {
    const int32_t id = spec.token_ids[i];
    if ((id != pads.image && id != pads.video) || (i > 0 && spec.token_ids[i - 1] == id)) continue;
    VisualList& list = id == pads.image ? images : videos;
    VNSA_RETURN_IF_ERROR(list.Take(golden, static_cast<int>(i), &spec));
  }
  return spec;
}

}  // namespace videonsa::golden
