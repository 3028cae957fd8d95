#include "server/trace/trace_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/random_id.h"

namespace videonsa {
namespace {

constexpr size_t kTraceDigits = 32;
constexpr size_t kSpanDigits = 16;
constexpr size_t kHeaderBytes = 55;  // of version 00: 2-32-16-2 with dashes

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '0'; });
}

}  // namespace

std::string TraceContext::Header() const {
  return absl::StrCat("00-", trace_id, "-", span_id, sampled ? "-01" : "-00");
}

TraceContext MakeTraceContext(absl::string_view header) {
  TraceContext context;
  context.span_id = absl::StrFormat("%016x", RandomBits());
  // Later versions may append fields after another dash.
  const bool shaped = header.size() >= kHeaderBytes && header[2] == '-' && header[35] == '-' &&
                      header[52] == '-' && IsHex(header.substr(0, 2)) &&
                      header.substr(0, 2) != "ff" &&
                      (header.size() == kHeaderBytes ||
                       (header.substr(0, 2) != "00" && header[kHeaderBytes] == '-'));
  if (shaped) {
    const absl::string_view trace = header.substr(3, kTraceDigits);
    const absl::string_view span = header.substr(36, kSpanDigits);
    const absl::string_view flags = header.substr(53, 2);
    if (IsHex(trace) && !IsZero(trace) && IsHex(span) && !IsZero(span) && IsHex(flags)) {
      context.trace_id = std::string(trace);
      context.parent_id = std::string(span);
      const char low = flags[1];
      context.sampled = ((low <= '9' ? low - '0' : low - 'a' + 10) & 1) != 0;
      return context;
    }
  }
  context.trace_id = absl::StrFormat("%016x%016x", RandomBits(), RandomBits());
  return context;
}

}  // namespace videonsa
