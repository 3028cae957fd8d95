#pragma once

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "tests/kernels/cpu/test_pages.h"

namespace videonsa {

/// Tolerance of fp32 kernels against fp64 oracles (attention.md section 7).
inline constexpr double kF32Tolerance = 1e-4;

/// |a - b| <= tolerance (1 + |b|) for every element, and no NaN.
inline ::testing::AssertionResult AllClose(const float* got, const double* want, size_t count,
                                           double tolerance = kF32Tolerance) {
  for (size_t i = 0; i < count; ++i) {
    if (!(std::abs(got[i] - want[i]) <= tolerance * (1 + std::abs(want[i])))) {
      return ::testing::AssertionFailure()
             << "element " << i << " of " << count << ": got " << got[i] << ", want " << want[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace videonsa
