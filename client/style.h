#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace videonsa::client {

/// How text may look on a terminal.
enum class Style { kPlain, kBold, kDim, kRed, kGreen, kYellow, kBlue, kCyan };

/// Colours text, or leaves it alone.
class Painter {
 public:
  explicit Painter(bool colour) : colour_(colour) {}

  std::string Paint(Style style, absl::string_view text) const;
  /// A bar of `width` cells with edges; `done` in 0..1.
  std::string Bar(double done, int width) const;

 private:
  bool colour_;
};

/// `share` (0..1) of `width` cells as left-aligned blocks with eighths, no padding; any positive
/// share shows at least one eighth.
std::string Blocks(double share, int width);

}  // namespace videonsa::client
