#pragma once

#include <string>
#include <vector>

#include "kernels/reference/attention_case.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/reporter.h"

namespace videonsa::golden {

/// Inputs of an attention golden as the oracle reads them.
reference::AttentionCase CaseOf(const GoldenCase& golden);

/// Margins at or below this and above 0 leave the choice to rounding (README of the goldens).
inline constexpr double kChoiceMargin = 1e-5;

/// True if the choice of this row and KV head is decided by more than rounding.
inline bool Decided(double margin) { return margin == 0 || margin > kChoiceMargin; }

/// Compares the product's and the oracle's results of one case with the golden's.
void CheckCausal(const GoldenCase& golden, Reporter& reporter);
void CheckReleased(const GoldenCase& golden, Reporter& reporter);
/// Through the GPU backend, F32 and BF16.
void CheckNsaOnDevice(const GoldenCase& golden, Reporter& reporter);
void CheckTopK(const GoldenCase& golden, Reporter& reporter);

/// Rows of a stored [row][width] tensor that a comparison keeps.
///
/// `want` holds one entry per index of `rows`; `got` one per position.
void CompareRows(Reporter& reporter, const GoldenCase& golden, const std::string& tensor,
                 const std::string& who, const std::vector<int64_t>& rows,
                 const std::vector<bool>& keep, const std::vector<float>& got);

}  // namespace videonsa::golden
