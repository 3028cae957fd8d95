#include "server/byte_size.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace videonsa {

bool ParseByteSize(absl::string_view text, int64_t* bytes) {
  int shift = 0;
  const size_t suffix =
      text.empty() ? std::string::npos : std::string("KMGT").find(absl::ascii_toupper(text.back()));
  if (suffix != std::string::npos) {
    shift = 10 * (static_cast<int>(suffix) + 1);
    text.remove_suffix(1);
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < 0) return false;
  if (number > (std::numeric_limits<int64_t>::max() >> shift)) return false;
  *bytes = number << shift;
  return true;
}

std::string FormatByteSize(int64_t bytes) {
  constexpr char kSuffixes[] = "KMGT";
  for (int i = 3; i >= 0; --i) {
    const int64_t unit = int64_t{1} << (10 * (i + 1));
    if (bytes >= unit && bytes % unit == 0) {
      return absl::StrCat(bytes / unit, std::string(1, kSuffixes[i]));
    }
  }
  return absl::StrCat(bytes);
}

}  // namespace videonsa
