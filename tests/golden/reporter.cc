#include "tests/golden/reporter.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace videonsa::golden {
namespace {

std::string Excerpt(absl::string_view text, size_t at) {
  const size_t begin = at > 12 ? at - 12 : 0;
  return absl::CHexEscape(text.substr(begin, 40));
}

}  // namespace

void Reporter::ExpectClose(absl::string_view case_name, absl::string_view tensor,
                           absl::Span<const float> actual, absl::Span<const float> expected) {
  if (actual.size() != expected.size()) {
    Record(false, case_name, tensor,
           absl::StrCat(actual.size(), " values, expected ", expected.size()));
    return;
  }
  size_t bad = 0, first_bad = 0, worst = 0;
  double largest = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i], b = expected[i];
    const double error = a == b ? 0 : std::fabs(a - b);
    // Written so that a NaN is outside, and infinity only equals itself.
    const bool within = a == b || (std::isfinite(b) &&
                                   error <= kAbsoluteTolerance + kRelativeTolerance * std::fabs(b));
    if (!within && bad++ == 0) first_bad = i;
    if (!(error <= largest)) {
      largest = error;
      worst = i;
    }
  }
  std::string detail = absl::StrFormat("largest error %.3g of %d values", largest, actual.size());
  if (bad > 0) {
    absl::StrAppendFormat(&detail, ", %d outside, first at %d: %.9g, expected %.9g; worst at %d",
                          bad, first_bad, actual[first_bad], expected[first_bad], worst);
  }
  Record(bad == 0, case_name, tensor, detail);
}

void Reporter::ExpectClose(const GoldenCase& golden, const std::string& tensor,
                           absl::Span<const float> actual) {
  const GoldenTensor* expected = golden.Find(tensor);
  if (expected == nullptr) return Record(false, golden.name, tensor, "not in the golden file");
  ExpectClose(golden.name, tensor, actual, expected->Floats());
}

void Reporter::ExpectEqual(absl::string_view case_name, absl::string_view tensor,
                           absl::Span<const int64_t> actual, absl::Span<const int64_t> expected) {
  const size_t common = std::min(actual.size(), expected.size());
  size_t first = 0;
  while (first < common && actual[first] == expected[first]) ++first;
  if (first == actual.size() && first == expected.size()) {
    Record(true, case_name, tensor, absl::StrCat("exact, ", actual.size(), " values"));
  } else if (first == common) {
    Record(false, case_name, tensor,
           absl::StrCat(actual.size(), " values, expected ", expected.size()));
  } else {
    Record(false, case_name, tensor,
           absl::StrCat("differs at ", first, " of ", actual.size(), " (expected ", expected.size(),
                        "): ", actual[first], ", expected ", expected[first]));
  }
}

void Reporter::ExpectEqual(absl::string_view case_name, absl::string_view tensor,
                           absl::Span<const int32_t> actual, absl::Span<const int64_t> expected) {
  const std::vector<int64_t> wide(actual.begin(), actual.end());
  ExpectEqual(case_name, tensor, wide, expected);
}

void Reporter::ExpectEqual(const GoldenCase& golden, const std::string& tensor,
                           absl::Span<const int32_t> actual) {
  const GoldenTensor* expected = golden.Find(tensor);
  if (expected == nullptr) return Record(false, golden.name, tensor, "not in the golden file");
  ExpectEqual(golden.name, tensor, actual, expected->Integers());
}

void Reporter::ExpectEqualText(absl::string_view case_name, absl::string_view what,
                               absl::string_view actual, absl::string_view expected) {
  const auto differ = std::mismatch(actual.begin(), actual.end(), expected.begin(), expected.end());
  if (actual == expected) {
    return Record(true, case_name, what, absl::StrCat("exact, ", actual.size(), " bytes"));
  }
  const size_t at = differ.first - actual.begin();
  Record(false, case_name, what,
         absl::StrCat("differs at byte ", at, ": \"", Excerpt(actual, at), "\", expected \"",
                      Excerpt(expected, at), "\""));
}

void Reporter::Record(bool passed, absl::string_view case_name, absl::string_view what,
                      absl::string_view detail) {
  ++(passed ? passed_ : failed_);
  out_ << (passed ? "ok   " : "FAIL ") << case_name << " " << what << ": " << detail << std::endl;
}

bool Reporter::ExpectOk(absl::string_view case_name, absl::string_view what,
                        const absl::Status& status) {
  if (!status.ok()) Record(false, case_name, what, status.ToString());
  return status.ok();
}

std::vector<int64_t> IntegersOf(const nlohmann::json& array) {
  std::vector<int64_t> out;
  if (!array.is_array()) return out;
  for (const nlohmann::json& item : array) {
    if (item.is_number_integer()) {
      out.push_back(item.get<int64_t>());
    } else if (item.is_array()) {
      const std::vector<int64_t> inner = IntegersOf(item);
      out.insert(out.end(), inner.begin(), inner.end());
    } else {
      return {};
    }
  }
  return out;
}

}  // namespace videonsa::golden
