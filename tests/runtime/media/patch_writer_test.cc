#include "runtime/media/patch_writer.h"

#include <gtest/gtest.h>

#include "runtime/media/video_patcher.h"

namespace videonsa {
namespace {

TEST(WritePatchesTest, PublishedBlackAndWhite) {
  constexpr float kBlack[3] = {-1.7923f, -1.7521f, -1.4802f},
                  kWhite[3] = {1.9303f, 2.0749f, 2.1459f};
  RgbxImage image;
  image.Resize(28, 28);
  std::vector<float> rows(4 * kPatchDim);
  WritePatches(image, 0, rows.data());
  for (int c = 0; c < 3; ++c) EXPECT_NEAR(rows[c * 2 * 196], kBlack[c], 5e-5);
  std::fill(image.values.begin(), image.values.end(), 255.0f);
  WritePatches(image, 1, rows.data());
  for (int c = 0; c < 3; ++c) EXPECT_NEAR(rows[(c * 2 + 1) * 196], kWhite[c], 5e-5);
}

TEST(WritePatchesTest, OrderOfRowsAndColumns) {
  constexpr int kHeight = 56, kWidth = 84;
  RgbxImage image;
  image.Resize(kHeight, kWidth);
  for (int y = 0; y < kHeight; ++y) {
    for (int x = 0; x < kWidth; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.values[4 * (y * kWidth + x) + c] = static_cast<float>((c * 64 + y) * 128 + x);
      }
    }
  }
  constexpr float kMean[3] = {122.77094268798828f, 116.74601745605469f, 104.09373474121094f};
  constexpr float kScale[3] = {68.50053405761719f, 66.63216400146484f, 70.32315826416016f};
  std::vector<float> rows(int64_t{kHeight / 14} * (kWidth / 14) * kPatchDim);
  WritePatches(image, 0, rows.data());
  WritePatches(image, 1, rows.data());
  size_t row = 0;
  for (int cell_y = 0; cell_y < kHeight / 28; ++cell_y) {
    for (int cell_x = 0; cell_x < kWidth / 28; ++cell_x) {
      for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 2; ++b, ++row) {
          for (int column = 0; column < kPatchDim; ++column) {
            const int c = column / 392, i = column % 196 / 14, j = column % 14;
            const int y = (2 * cell_y + a) * 14 + i, x = (2 * cell_x + b) * 14 + j;
            const float expected = (image.values[4 * (y * kWidth + x) + c] - kMean[c]) / kScale[c];
            ASSERT_EQ(rows[row * kPatchDim + column], expected) << row << ", " << column;
          }
        }
      }
    }
  }
}

TEST(VideoPatcherTest, PiecesJoinToTheWholeAndOddFramesAreRepeated) {
  const FrameSize source{30, 40};
  const VisualSize size{{28, 56}, {56, 84}};
  std::vector<std::vector<uint8_t>> frames;
  for (int f = 0; f < 7; ++f) {
    std::vector<uint8_t>& frame = frames.emplace_back(3 * source.pixels());
    for (size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<uint8_t>(i * 7 + f * 31);
  }
  const auto run = [&](int piece_patches, std::vector<int>* begins) {
    std::vector<float> rows;
    VideoPatcher patcher(source, size, 7, piece_patches, [&](PatchPiece piece) {
      EXPECT_EQ(piece.whole, (PatchGrid{4, 4, 6}));
      begins->push_back(piece.t_begin);
      rows.insert(rows.end(), piece.patches->rows.begin(), piece.patches->rows.end());
      return absl::OkStatus();
    });
    for (const auto& frame : frames) EXPECT_TRUE(patcher.AddFrame(frame.data()).ok());
    EXPECT_TRUE(patcher.Finish().ok());
    return rows;
  };
  std::vector<int> one, three;
  const std::vector<float> whole = run(100, &one), pieces = run(3, &three);
  EXPECT_EQ(one, std::vector<int>({0}));
  EXPECT_EQ(three, std::vector<int>({0, 3}));
  ASSERT_EQ(whole.size(), size_t{4} * 4 * 6 * kPatchDim);
  EXPECT_EQ(whole, pieces);
  // Frame 7 is frame 6 again: both halves of the last temporal patch are equal.
  const float* last = whole.data() + size_t{3} * 4 * 6 * kPatchDim;
  for (int i = 0; i < 196; ++i) ASSERT_EQ(last[i], last[196 + i]);
}

TEST(VideoPatcherTest, StopsWhenAPieceIsRefused) {
  VideoPatcher patcher({28, 28}, {{28, 28}, {28, 28}}, 4, 1,
                       [](PatchPiece) { return absl::CancelledError("enough"); });
  const std::vector<uint8_t> frame(28 * 28 * 3);
  EXPECT_TRUE(patcher.AddFrame(frame.data()).ok());
  EXPECT_EQ(patcher.AddFrame(frame.data()).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace videonsa
