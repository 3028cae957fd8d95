#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tests/golden/golden_case.h"

namespace videonsa::golden {

/// |actual - expected| <= kAbsoluteTolerance + kRelativeTolerance * |expected|.
inline constexpr double kAbsoluteTolerance = 1e-4;
inline constexpr double kRelativeTolerance = 1e-4;

/// Compares values with goldens and prints one line a comparison:
/// `ok   <case> <tensor>: <what>` or `FAIL <case> <tensor>: <what>`.
///
/// Threads: one at a time.
class Reporter {
 public:
  explicit Reporter(std::ostream& out) : out_(out) {}
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  /// Every element within tolerance and as many of them; a NaN on either side fails.
  void ExpectClose(absl::string_view case_name, absl::string_view tensor,
                   absl::Span<const float> actual, absl::Span<const float> expected);
  /// As above, with the golden of a case; fails if the case does not hold it or its number of
  /// elements differs.
  void ExpectClose(const GoldenCase& golden, const std::string& tensor,
                   absl::Span<const float> actual);

  /// Equal lengths and elements.
  void ExpectEqual(absl::string_view case_name, absl::string_view tensor,
                   absl::Span<const int64_t> actual, absl::Span<const int64_t> expected);
  void ExpectEqual(absl::string_view case_name, absl::string_view tensor,
                   absl::Span<const int32_t> actual, absl::Span<const int64_t> expected);
  void ExpectEqual(const GoldenCase& golden, const std::string& tensor,
                   absl::Span<const int32_t> actual);
  /// Equal bytes.
  void ExpectEqualText(absl::string_view case_name, absl::string_view what,
                       absl::string_view actual, absl::string_view expected);

  /// Records the outcome of a comparison made elsewhere.
  void Record(bool passed, absl::string_view case_name, absl::string_view what,
              absl::string_view detail);
  /// Records a failure unless `status` is OK; returns whether it is OK.
  bool ExpectOk(absl::string_view case_name, absl::string_view what, const absl::Status& status);

  int passed() const { return passed_; }
  int failed() const { return failed_; }

 private:
  std::ostream& out_;
  int passed_ = 0;
  int failed_ = 0;
};

/// The numbers of a JSON array of (nested arrays of) integers, flattened; empty if it is not one.
std::vector<int64_t> IntegersOf(const nlohmann::json& array);

}  // namespace videonsa::golden
