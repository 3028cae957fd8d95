#include "client/openai/data_urls.h"

#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace videonsa::openai {
namespace {

// Stands for a URL that was taken out; written by a caller it would be refused: it has no comma.
constexpr absl::string_view kMark = "data:#";

// Position of the quote that ends the text beginning at `begin`, or npos.
size_t EndOfText(absl::string_view body, size_t begin) {
  for (size_t at = begin; at < body.size(); ++at) {
    const void* const quote = std::memchr(body.data() + at, '"', body.size() - at);
    if (quote == nullptr) break;
    const size_t end = static_cast<size_t>(static_cast<const char*>(quote) - body.data());
    size_t escapes = 0;
    while (end - escapes > begin && body[end - escapes - 1] == '\\') ++escapes;
    if (escapes % 2 == 0) return end;
    at = end;
  }
  return absl::string_view::npos;
}

bool IsPlain(absl::string_view text) {
  bool odd = false;
  for (const char c : text) odd |= c < 0x20 || c == 0x7f || c == '\\';  // and what is negative
  return !odd;
}

bool HoldsUrl(absl::string_view key) {
  return key == "url" || key == "video_url" || key == "image_url";
}

}  // namespace

DataUrls::DataUrls(absl::string_view body, size_t least) : body_(body) {
  if (body.size() < least) return;
  absl::string_view key;  // the text before, if nothing but a colon stands between
  size_t copied = 0, from = 0;
  while (true) {
    const size_t quote = body.find('"', from);
    if (quote == absl::string_view::npos) break;
    const size_t begin = quote + 1, end = EndOfText(body, begin);
    if (end == absl::string_view::npos) break;
    const bool value = absl::StripAsciiWhitespace(body.substr(from, quote - from)) == ":";
    const absl::string_view text = body.substr(begin, end - begin);
    if (value && HoldsUrl(key) && text.size() >= least &&
        absl::StartsWithIgnoreCase(text, "data:") && IsPlain(text)) {
      absl::StrAppend(&json_, body.substr(copied, begin - copied), kMark, urls_.size());
      urls_.push_back(text);
      copied = end;
    }
    key = value ? absl::string_view() : text;
    from = end + 1;
  }
  if (!urls_.empty()) absl::StrAppend(&json_, body.substr(copied));
}

absl::string_view DataUrls::Original(absl::string_view text) const {
  absl::string_view number = text;
  size_t index = 0;
  const bool mark = absl::ConsumePrefix(&number, kMark) && absl::SimpleAtoi(number, &index) &&
                    index < urls_.size() && text == absl::StrCat(kMark, index);
  return mark ? urls_[index] : text;
}

}  // namespace videonsa::openai
