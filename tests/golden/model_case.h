#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/step/executor.h"
#include "tests/golden/golden_case.h"

namespace videonsa::golden {

/// Pads that mark the visuals of a prompt.
struct PadIds {
  int32_t image = 0;
  int32_t video = 0;
};

/// The golden prompt as a sequence: ids, positions, pixel rows (stored, or made from the stored
/// frames, or from the case's formula) and pages 0, 1, …
///
/// `siblings` are the other cases of the folder: a case may use the frames of one with equal pixel
/// rows. Errors: INVALID_ARGUMENT if something needed is missing or a pixel hash differs.
absl::StatusOr<SequenceSpec> SpecOfCase(const GoldenCase& golden,
                                        const std::vector<GoldenCase>& siblings, PadIds pads);

/// Grids of the visuals of one kind, in order.
std::vector<PatchGrid> GridsOf(const GoldenCase& golden, const char* tensor);

}  // namespace videonsa::golden
