#include "runtime/text/utf8.h"

#include <cstdint>
#include <cstring>

namespace videonsa {
namespace {

// Length of the sequence that `lead` begins (0: none does) and the range of its second byte.
struct LeadInfo {
  int length;
  uint8_t second_min, second_max;
};

LeadInfo InfoOf(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

size_t AsciiPrefix(absl::string_view bytes) {
  size_t i = 0;
  for (uint64_t word; i + 8 <= bytes.size(); i += 8) {
    std::memcpy(&word, bytes.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < bytes.size() && static_cast<uint8_t>(bytes[i]) < 0x80) ++i;
  return i;
}

}  // namespace

Utf8Unit NextUtf8Unit(absl::string_view bytes) {
  const auto at = [&bytes](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const LeadInfo info = InfoOf(at(0));
  if (info.length == 1) return {Utf8Unit::kValid, 1};
  if (info.length == 0) return {Utf8Unit::kInvalid, 1};
  if (bytes.size() == 1) return {Utf8Unit::kIncomplete, 1};
  if (at(1) < info.second_min || at(1) > info.second_max) return {Utf8Unit::kInvalid, 1};
  for (size_t i = 2; i < static_cast<size_t>(info.length); ++i) {
    if (i == bytes.size()) return {Utf8Unit::kIncomplete, i};
    if ((at(i) & 0xC0) != 0x80) return {Utf8Unit::kInvalid, i};
  }
  return {Utf8Unit::kValid, static_cast<size_t>(info.length)};
}

size_t FindInvalidUtf8(absl::string_view bytes) {
  size_t used = 0;
  while (true) {
    used += AsciiPrefix(bytes.substr(used));
    if (used == bytes.size()) return absl::string_view::npos;
    const Utf8Unit unit = NextUtf8Unit(bytes.substr(used));
    if (unit.kind != Utf8Unit::kValid) return used;
    used += unit.length;
  }
}

size_t AppendUtf8Lossy(absl::string_view bytes, bool flush, std::string& out) {
  size_t used = 0;
  while (used < bytes.size()) {
    const absl::string_view rest = bytes.substr(used);
    const size_t ascii = AsciiPrefix(rest);
    if (ascii > 0) {
      out.append(rest.data(), ascii);
      used += ascii;
      continue;
    }
    const Utf8Unit unit = NextUtf8Unit(rest);
    if (unit.kind == Utf8Unit::kIncomplete && !flush) break;
    if (unit.kind == Utf8Unit::kValid) {
      out.append(rest.data(), unit.length);
    } else {
      out.append("\xEF\xBF\xBD");
    }
    used += unit.length;
  }
  return used;
}

char32_t DecodeUtf8(absl::string_view bytes) {
  const auto at = [&bytes](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return lead;
  if (lead < 0xE0) return ((lead & 0x1Fu) << 6) | (at(1) & 0x3Fu);
  if (lead < 0xF0) return ((lead & 0x0Fu) << 12) | ((at(1) & 0x3Fu) << 6) | (at(2) & 0x3Fu);
  return ((lead & 0x07u) << 18) | ((at(1) & 0x3Fu) << 12) | ((at(2) & 0x3Fu) << 6) |
         (at(3) & 0x3Fu);
}

void AppendUtf8(char32_t code_point, std::string& out) {
  const auto push = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | (code_point >> 6));
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | (code_point >> 12));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | (code_point >> 18));
    push(0x80 | ((code_point >> 12) & 0x3F));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

}  // namespace videonsa
