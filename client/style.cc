#include "client/style.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

const char* CodeOf(Style style) {
  switch (style) {
    case Style::kBold:
      return "1";
    case Style::kDim:
      return "2";
    case Style::kRed:
      return "31";
    case Style::kGreen:
      return "32";
    case Style::kYellow:
      return "33";
    case Style::kBlue:
      return "34";
    case Style::kCyan:
      return "36";
    case Style::kPlain:
      break;
  }
  return "0";
}

}  // namespace

std::string Painter::Paint(Style style, absl::string_view text) const {
  if (!colour_ || style == Style::kPlain || text.empty()) return std::string(text);
  return absl::StrCat("\x1b[", CodeOf(style), "m", text, "\x1b[0m");
}

std::string Painter::Bar(double done, int width) const {
  const std::string full = Blocks(done, width);
  return absl::StrCat(Paint(Style::kDim, "▕"), Paint(Style::kCyan, full),
                      std::string(width - DisplayWidth(full), ' '), Paint(Style::kDim, "▏"));
}

std::string Blocks(double share, int width) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double clamped = std::clamp(share, 0.0, 1.0);
  int eighths = static_cast<int>(std::lround(clamped * width * 8));
  if (clamped > 0) eighths = std::max(eighths, 1);
  std::string out;
  for (int i = 0; i < eighths / 8; ++i) out += "█";
  return absl::StrCat(out, kEighths[eighths % 8]);
}

}  // namespace videonsa::client
