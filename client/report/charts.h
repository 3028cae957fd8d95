#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace videonsa::client {

/// Charts as inline SVG for HtmlPage. Every chart carries a description for screen readers; colours
/// come from the page's style (`colour` 1..8), so they follow light and dark.

/// One value with its name.
struct ChartBar {
  std::string name;
  double value = 0;
  std::string text;  ///< the value for people
  int colour = 1;
};

/// Horizontal bars, one a row, with name and value.
std::string RowChart(absl::string_view description, const std::vector<ChartBar>& bars);

/// Rows of segments that follow each other: where time or pairs went. `total` is the full width.
struct ChartSegment {
  double begin = 0;
  double length = 0;
  int colour = 1;
  std::string tip;
};
struct ChartRow {
  std::string name;
  std::vector<ChartSegment> segments;
  std::string text;
};
std::string SegmentChart(absl::string_view description, const std::vector<ChartRow>& rows,
                         double total);

/// Columns along a numeric axis, as a histogram or a timeline.
struct ColumnChartSpec {
  std::string description;
  std::vector<double> values;
  std::vector<std::string> tips;                        ///< one a column, may be empty
  std::vector<std::pair<double, std::string>> ticks;    ///< position in columns, label
  std::vector<std::pair<double, std::string>> markers;  ///< vertical lines with a label
  std::string y_label;                                  ///< what a full column is
  int colour = 1;
  int height = 150;
};
std::string ColumnChart(const ColumnChartSpec& spec);

/// Lines over a numeric axis.
struct ChartLine {
  std::string name;
  std::vector<std::pair<double, double>> points;
  int colour = 1;
};
struct LineChartSpec {
  std::string description;
  std::vector<ChartLine> lines;
  std::string x_label;
  std::string y_label;
  double y_max = 0;    ///< 0: from the data
  bool x_log = false;  ///< powers of ten at equal distances; values are positive
  int height = 200;
};
std::string LineChart(const LineChartSpec& spec);

/// The list of colours with their names.
std::string ChartKey(const std::vector<std::pair<std::string, int>>& entries);

}  // namespace videonsa::client
