#include "client/report/charts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/report/html.h"

namespace videonsa::client {
namespace {

// All charts share one width in user units; the page scales them.
constexpr double kWidth = 860;

std::string Open(absl::string_view description, double height) {
  return absl::StrFormat(
      "<div class=\"chart\"><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">\n",
      kWidth, height, Escaped(description));
}

constexpr char kClose[] = "</svg></div>\n";

std::string Text(double x, double y, absl::string_view text, absl::string_view attributes = "") {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, attributes,
                         Escaped(text));
}

std::string Box(double x, double y, double width, double height, int colour,
                absl::string_view tip) {
  return absl::StrFormat(
      "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" rx=\"%.1f\" class=\"f%d\">"
      "<title>%s</title></rect>\n",
      x, y, std::max(width, 0.75), std::max(height, 0.0), width > 6 && height > 6 ? 2.0 : 0.0,
      colour, Escaped(tip));
}

std::string Line(double x1, double y1, double x2, double y2, absl::string_view css) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n",
                         x1, y1, x2, y2, css);
}

// A step of 1, 2 or 5 times a power of ten that cuts `range` into about `parts`.
double NiceStep(double range, int parts) {
  const double raw = range / parts;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power * 1.0001) return factor * power;
  }
  return 10 * power;
}

}  // namespace

std::string RowChart(absl::string_view description, const std::vector<ChartBar>& bars) {
  constexpr double kRow = 30, kLeft = 130, kRight = 190;
  double most = 0;
  for (const ChartBar& bar : bars) most = std::max(most, bar.value);
  std::string out = Open(description, kRow * static_cast<double>(bars.size()) + 4);
  double y = 2;
  for (const ChartBar& bar : bars) {
    const double width = most > 0 ? bar.value / most * (kWidth - kLeft - kRight) : 0;
    absl::StrAppend(&out, Text(kLeft - 10, y + 19, bar.name, "class=\"ink\" text-anchor=\"end\""),
                    Box(kLeft, y + 5, width, kRow - 10, bar.colour, bar.text),
                    Text(kLeft + width + 8, y + 19, bar.text));
    y += kRow;
  }
  return out + kClose;
}

std::string SegmentChart(absl::string_view description, const std::vector<ChartRow>& rows,
                         double total) {
  constexpr double kRight = 120, kLeft = 130;
  const double row_height = rows.size() > 16 ? 15 : 28;
  const double plot = kWidth - kLeft - kRight;
  std::string out = Open(description, row_height * static_cast<double>(rows.size()) + 6);
  double y = 3;
  for (const ChartRow& row : rows) {
    const double baseline = y + row_height / 2 + 4;
    absl::StrAppend(&out,
                    Text(kLeft - 10, baseline, row.name, "class=\"ink\" text-anchor=\"end\""));
    double last = kLeft;
    for (const ChartSegment& segment : row.segments) {
      if (segment.length <= 0 || total <= 0) continue;
      const double x = kLeft + segment.begin / total * plot;
      const double width = segment.length / total * plot;
      absl::StrAppend(&out, Box(x, y + 3, width, row_height - 6, segment.colour, segment.tip));
      last = std::max(last, x + std::max(width, 0.75));
    }
    absl::StrAppend(&out, Text(last + 8, baseline, row.text));
    y += row_height;
  }
  return out + kClose;
}

std::string ColumnChart(const ColumnChartSpec& spec) {
  constexpr double kLeft = 4, kRight = 4, kTop = 40, kBottom = 24;
  const double plot_width = kWidth - kLeft - kRight;
  const double count = static_cast<double>(std::max<size_t>(spec.values.size(), 1));
  const double step = plot_width / count;
  const double gap = step > 5 ? 1.0 : 0.0;
  double most = 0;
  for (const double value : spec.values) most = std::max(most, value);
  const double base = kTop + spec.height;
  std::string out = Open(spec.description, base + kBottom);
  absl::StrAppend(
      &out, Line(kLeft, kTop, kLeft + plot_width, kTop, "grid"),
      Line(kLeft, kTop + spec.height / 2.0, kLeft + plot_width, kTop + spec.height / 2.0, "grid"),
      Text(kLeft, kTop - 25, spec.y_label));
  for (size_t i = 0; i < spec.values.size(); ++i) {
    if (spec.values[i] <= 0) continue;
    const double height = std::max(spec.values[i] / most * spec.height, 0.8);
    absl::StrAppend(&out, Box(kLeft + static_cast<double>(i) * step, base - height, step - gap,
                              height, spec.colour, i < spec.tips.size() ? spec.tips[i] : ""));
  }
  absl::StrAppend(&out, Line(kLeft, base, kLeft + plot_width, base, "axis"));
  for (const auto& [at, label] : spec.ticks) {
    const double x = kLeft + at * step;
    const bool near_end = x > kWidth - 60;
    absl::StrAppend(
        &out, Line(x, base, x, base + 5, "axis"),
        Text(near_end ? x - 3 : x + 3, base + 16, label, near_end ? "text-anchor=\"end\"" : ""));
  }
  for (const auto& [at, label] : spec.markers) {
    const double x = kLeft + at * step;
    const bool near_end = x > kWidth - 60;
    absl::StrAppend(
        &out, Line(x, kTop - 4, x, base, "axis"),
        Text(x, kTop - 8, label, near_end ? "class=\"ink\" text-anchor=\"end\"" : "class=\"ink\""));
  }
  return out + kClose;
}

namespace {

// Maps a line chart's values to the page.
class Plane {
 public:
  static constexpr double kLeft = 56, kRight = 12, kTop = 22, kBottom = 38;

  explicit Plane(const LineChartSpec& spec) : spec_(spec), y_max_(spec.y_max) {
    double low = INFINITY, high = 0;
    for (const ChartLine& line : spec.lines) {
      for (const auto& [x, y] : line.points) {
        high = std::max(high, x);
        whole_ = whole_ && x == std::floor(x);
        if (x > 0) low = std::min(low, x);
        if (spec.y_max <= 0) y_max_ = std::max(y_max_, y);
      }
    }
    if (high <= 0) high = 1;
    if (y_max_ <= 0) y_max_ = 1;
    x_low_ = spec.x_log ? std::log10(std::min(low, high * 0.999)) - 0.02 : 0;
    x_high_ = spec.x_log ? std::log10(high) : high;
  }

  double base() const { return kTop + spec_.height; }
  double X(double x) const {
    if (spec_.x_log) x = std::log10(std::max(x, std::pow(10, x_low_)));
    return kLeft + (x - x_low_) / (x_high_ - x_low_) * (kWidth - kLeft - kRight);
  }
  double Y(double y) const { return base() - std::min(y / y_max_, 1.0) * spec_.height; }

  std::string Axes() const {
    std::string out = Text(kLeft, kTop - 9, spec_.y_label);
    const double y_step = NiceStep(y_max_, 4);
    for (double y = 0; y <= y_max_ * 1.0001; y += y_step) {
      absl::StrAppend(&out, Line(kLeft, Y(y), kWidth - kRight, Y(y), "grid"),
                      Text(kLeft - 6, Y(y) + 4, absl::StrFormat("%.4g", y), "text-anchor=\"end\""));
    }
    for (const double x : XTicks()) {
      absl::StrAppend(
          &out, Line(X(x), base(), X(x), base() + 4, "axis"),
          Text(X(x), base() + 17, absl::StrFormat("%.4g", x), "text-anchor=\"middle\""));
    }
    absl::StrAppend(&out, Line(kLeft, base(), kWidth - kRight, base(), "axis"),
                    Text(kWidth - kRight, base() + 34, spec_.x_label, "text-anchor=\"end\""));
    return out;
  }

 private:
  std::vector<double> XTicks() const {
    std::vector<double> ticks;
    if (!spec_.x_log) {
      const double step = whole_ ? std::max(1.0, NiceStep(x_high_, 8)) : NiceStep(x_high_, 8);
      for (double x = 0; x <= x_high_ * 1.0001; x += step) ticks.push_back(x);
      return ticks;
    }
    // Few powers of ten need more steps within each.
    const bool narrow = x_high_ - x_low_ < 1;
    const std::vector<double> factors =
        narrow ? std::vector<double>{1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9}
               : std::vector<double>{1, 2, 5};
    for (double power = std::floor(x_low_); power <= x_high_; ++power) {
      for (const double factor : factors) {
        const double x = factor * std::pow(10, power);
        if (std::log10(x) >= x_low_ - 1e-9 && std::log10(x) <= x_high_ + 1e-9) ticks.push_back(x);
      }
    }
    return ticks;
  }

  const LineChartSpec& spec_;
  double y_max_, x_low_ = 0, x_high_ = 1;
  bool whole_ = true;  // no value of x has a fraction: layers, seconds
};

}  // namespace

std::string LineChart(const LineChartSpec& spec) {
  const Plane plane(spec);
  std::string out =
      absl::StrCat(Open(spec.description, plane.base() + Plane::kBottom), plane.Axes());
  for (const ChartLine& line : spec.lines) {
    std::string points;
    for (const auto& [x, y] : line.points) {
      absl::StrAppend(&points, absl::StrFormat("%.1f,%.1f ", plane.X(x), plane.Y(y)));
    }
    absl::StrAppend(&out, "<polyline fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\" ",
                    "class=\"l", line.colour, "\" points=\"", points, "\"><title>",
                    Escaped(line.name), "</title></polyline>\n");
  }
  return out + kClose;
}

std::string ChartKey(const std::vector<std::pair<std::string, int>>& entries) {
  std::string out = "<ul class=\"key\">";
  for (const auto& [name, colour] : entries) {
    absl::StrAppend(&out, "<li><i class=\"f", colour, "\"></i>", Escaped(name), "</li>");
  }
  return out + "</ul>\n";
}

}  // namespace videonsa::client
