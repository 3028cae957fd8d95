#include "runtime/media/patch_writer.h"

#include "runtime/base/check.h"

namespace videonsa {
namespace {

constexpr float kMean[3] = {122.77094268798828f, 116.74601745605469f, 104.09373474121094f};
constexpr float kScale[3] = {68.50053405761719f, 66.63216400146484f, 70.32315826416016f};
constexpr int kPatchPixels = kPatchSize * kPatchSize;

}  // namespace

void WritePatches(const RgbxImage& frame, int k, float* rows) {
  VNSA_CHECK(frame.height % (2 * kPatchSize) == 0 && frame.width % (2 * kPatchSize) == 0);
  const int patch_rows = frame.height / kPatchSize, patch_columns = frame.width / kPatchSize;
  for (int py = 0; py < patch_rows; ++py) {
    for (int px = 0; px < patch_columns; ++px) {
      // 2 x 2 merge groups are contiguous.
      const size_t cell = size_t(py / 2) * (patch_columns / 2) + px / 2;
      float* row = rows + (cell * 4 + py % 2 * 2 + px % 2) * kPatchDim;
      for (int i = 0; i < kPatchSize; ++i) {
        const float* from = frame.values.data() + 4 * (size_t(py * kPatchSize + i) * frame.width +
                                                       size_t(px) * kPatchSize);
        float* to = row + k * kPatchPixels + i * kPatchSize;
        for (int c = 0; c < 3; ++c, to += kTemporalPatch * kPatchPixels) {
          for (int j = 0; j < kPatchSize; ++j) to[j] = (from[4 * j + c] - kMean[c]) / kScale[c];
        }
      }
    }
  }
}

}  // namespace videonsa
