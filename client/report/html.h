#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace videonsa::client {

/// Text made safe for HTML content and attributes; control characters and broken UTF-8 are
/// replaced.
std::string Escaped(absl::string_view text);

/// A whole page: no network, no script, light and dark by the reader's preference, readable by a
/// screen reader and on paper.
///
/// Requires: body is HTML, title is plain text.
std::string HtmlPage(absl::string_view title, absl::string_view body);

/// A section with a heading; `id` is its anchor.
std::string Section(absl::string_view id, absl::string_view heading, absl::string_view body);

/// A table of two columns from plain texts.
std::string FactsTable(const std::vector<std::pair<std::string, std::string>>& rows);

/// A table with a heading row from plain texts; every column but the first is aligned right.
std::string DataTable(const std::vector<std::string>& head,
                      const std::vector<std::vector<std::string>>& rows);

/// Something that opens on a click, for numbers behind a chart.
std::string Details(absl::string_view summary, absl::string_view body);

/// "data:image/jpeg;base64,…".
std::string JpegUrl(absl::string_view jpeg);

}  // namespace videonsa::client
