#include "client/format.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace videonsa::client {
namespace {

// Decodes one character at text[pos]; returns its length, or 0 if it is not well formed.
int DecodeUtf8(absl::string_view text, size_t pos, uint32_t* code_point) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[pos + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    *code_point = lead;
    return 1;
  }
  const int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || pos + length > text.size()) return 0;
  uint32_t value = lead & (0x7f >> length);
  for (int i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    value = (value << 6) | (byte(i) & 0x3f);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  if (overlong || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return 0;
  *code_point = value;
  return length;
}

int WidthOf(uint32_t c) {
  if (c < 0x20 || (c >= 0x300 && c < 0x370) || c == 0x200d || (c >= 0xfe00 && c < 0xfe10)) return 0;
  const bool wide = (c >= 0x1100 && c < 0x1160) || (c >= 0x2e80 && c < 0xa4d0) ||
                    (c >= 0xac00 && c < 0xd7a4) || (c >= 0xf900 && c < 0xfb00) ||
                    (c >= 0xfe30 && c < 0xfe70) || (c >= 0xff00 && c < 0xff61) ||
                    (c >= 0x1f300 && c < 0x1f650) || (c >= 0x1f900 && c < 0x1fa00) ||
                    (c >= 0x20000 && c < 0x30000);
  return wide ? 2 : 1;
}

}  // namespace

std::string HumanDuration(absl::Duration duration) {
  const double s = absl::ToDoubleSeconds(duration);
  if (s < 0) return absl::StrCat("-", HumanDuration(-duration));
  if (s == 0) return "0 s";
  if (s < 1e-3) return absl::StrFormat("%.0f µs", s * 1e6);
  if (s < 0.01) return absl::StrFormat("%.1f ms", s * 1e3);
  if (s < 0.9995) return absl::StrFormat("%.0f ms", s * 1e3);
  if (s < 9.995) return absl::StrFormat("%.2f s", s);
  if (s < 60) return absl::StrFormat("%.1f s", s);
  const int64_t whole = std::llround(s);
  if (whole < 3600) return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %d min", whole / 3600, whole % 3600 / 60);
}

std::string HumanBytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (std::abs(bytes) >= 999.5 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  if (unit == 0) return absl::StrFormat("%.0f B", bytes);
  const int digits = bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f %s", digits, bytes, kUnits[unit]);
}

std::string Grouped(int64_t value) {
  const std::string digits = absl::StrCat(value < 0 ? -static_cast<uint64_t>(value) : value);
  std::string out = value < 0 ? "-" : "";
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string Percent(double share) {
  const double percent = share * 100;
  if (percent == 0) return "0 %";
  if (std::abs(percent) < 0.01) return "<0.01 %";
  if (std::abs(percent) < 1) return absl::StrFormat("%.2f %%", percent);
  return absl::StrFormat("%.1f %%", percent);
}

std::string ClipTime(absl::Duration offset) {
  const int64_t tenths = std::llround(absl::ToDoubleSeconds(offset) * 10);
  if (tenths < 600) return absl::StrFormat("%.1f s", tenths / 10.0);
  const int64_t s = tenths / 10;
  if (s < 3600) return absl::StrFormat("%d:%02d.%d", s / 60, s % 60, tenths % 10);
  return absl::StrFormat("%d:%02d:%02d", s / 3600, s % 3600 / 60, s % 60);
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration out;
  absl::Duration rest;
  out.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  out.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return out;
}

absl::StatusOr<absl::Duration> ParseClipTime(absl::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not a time; write 90, 90s, 1m30s or 1:30"));
  double seconds = 0;
  absl::Duration parsed;
  if (text.empty()) return bad;
  if (text.find(':') != absl::string_view::npos) {
    const std::vector<std::string> fields = absl::StrSplit(text, ':');
    if (fields.size() > 3) return bad;
    for (const std::string& field : fields) {
      double value = 0;
      if (!absl::SimpleAtod(field, &value) || !(value >= 0)) return bad;
      seconds = seconds * 60 + value;
    }
    parsed = absl::Seconds(seconds);
  } else if (absl::SimpleAtod(text, &seconds)) {
    parsed = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &parsed)) {
    return bad;
  }
  if (parsed < absl::ZeroDuration() || parsed > absl::Hours(24 * 365)) return bad;
  return parsed;
}

std::string PrintableText(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    uint32_t c = 0;
    const int length = DecodeUtf8(text, pos, &c);
    if (length == 0) {
      out += "\xef\xbf\xbd";
      ++pos;
      continue;
    }
    const bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0) ||
                         (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
    if (control) {
      out += '?';
    } else {
      out.append(text.data() + pos, length);
    }
    pos += length;
  }
  return out;
}

bool IsUtf8(absl::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    uint32_t c = 0;
    const int length = DecodeUtf8(text, pos, &c);
    if (length == 0) return false;
    pos += length;
  }
  return true;
}

int DisplayWidth(absl::string_view text) {
  int width = 0;
  for (size_t pos = 0; pos < text.size();) {
    uint32_t c = 0;
    const int length = DecodeUtf8(text, pos, &c);
    width += length == 0 ? 1 : WidthOf(c);
    pos += length == 0 ? 1 : length;
  }
  return width;
}

std::string Ellipsize(absl::string_view text, int columns) {
  if (DisplayWidth(text) <= columns) return std::string(text);
  int width = 0;
  size_t pos = 0;
  while (pos < text.size()) {
    uint32_t c = 0;
    const int length = DecodeUtf8(text, pos, &c);
    const int step = length == 0 ? 1 : WidthOf(c);
    if (width + step > columns - 1) break;
    width += step;
    pos += length == 0 ? 1 : length;
  }
  return absl::StrCat(text.substr(0, pos), "…");
}

std::vector<std::string> WrapText(absl::string_view text, int columns) {
  std::vector<std::string> lines;
  for (absl::string_view paragraph : absl::StrSplit(text, '\n')) {
    std::string line;
    for (absl::string_view word : absl::StrSplit(paragraph, ' ', absl::SkipEmpty())) {
      if (!line.empty() && DisplayWidth(line) + 1 + DisplayWidth(word) > columns) {
        lines.push_back(line);
        line.clear();
      }
      if (!line.empty()) line += ' ';
      absl::StrAppend(&line, word);
    }
    lines.push_back(line);
  }
  return lines;
}

}  // namespace videonsa::client
