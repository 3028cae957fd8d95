#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"

namespace videonsa::client {

/// "350 µs", "12 ms", "3.21 s", "2 min 5 s": three digits or so, for people.
std::string HumanDuration(absl::Duration duration);

/// "512 B", "3.4 MB" (powers of 1000).
std::string HumanBytes(double bytes);

/// "12,345,678".
std::string Grouped(int64_t value);

/// "11.3 %" of a share 0..1; more digits when small.
std::string Percent(double share);

/// A moment inside a clip: "4.5 s" below a minute, else "1:04.5" or "1:02:03".
std::string ClipTime(absl::Duration offset);

absl::Duration FromProto(const google::protobuf::Duration& duration);
google::protobuf::Duration ToProto(absl::Duration duration);

/// Reads "90", "90s", "1m30s", "1:30" or "0:01:30.5" (plain numbers are seconds).
/// Errors: INVALID_ARGUMENT with the text; negative values are refused.
absl::StatusOr<absl::Duration> ParseClipTime(absl::string_view text);

/// Replaces control characters except line break and tab by '?', and bytes that are not UTF-8 by
/// U+FFFD, so that text of others cannot drive a terminal.
std::string PrintableText(absl::string_view text);

/// True if `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool IsUtf8(absl::string_view text);

/// Columns that `text` takes on a terminal; wide East Asian characters count two.
int DisplayWidth(absl::string_view text);

/// Cuts at a character border so that at most `columns` remain, with "…" if something was cut.
std::string Ellipsize(absl::string_view text, int columns);

/// Breaks at blanks into lines of at most `columns`; longer words stand alone.
std::vector<std::string> WrapText(absl::string_view text, int columns);

}  // namespace videonsa::client
