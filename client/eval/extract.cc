#include "client/eval/extract.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace videonsa::client {
namespace {

// The order matters: "The answer" would eat the start of "The answer is".
constexpr const char* kPhrases[] = {
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is", "The correct option is", "Best answer:",  "Best option:"};
// As in the task files of Video-MME, where commas are missing between the last four.
constexpr const char* kGluedPhrases[] = {"The best answer is",
                                         "The correct answer is",
                                         "The answer is",
                                         "The answer",
                                         "The best option isThe correct option is",
                                         "Best answer:Best option:"};

template <size_t n>
std::string FirstCapital(absl::string_view reply, const char* const (&phrases)[n], char last) {
  std::string text(absl::StripAsciiWhitespace(reply));
  for (const char* phrase : phrases) absl::StrReplaceAll({{phrase, ""}}, &text);
  for (const char c : text) {
    if (c >= 'A' && c <= last) return std::string(1, c);
  }
  return "";
}

// Letters of other scripts count as parts of words, so bytes beyond ASCII do.
bool IsWord(char c) { return absl::ascii_isalnum(c) || c == '_' || (c & 0x80) != 0; }

// First letter of a..`last` (any case) without word characters beside it; empty if none.
std::string LoneLetter(absl::string_view text, char last, bool capitals_only) {
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = capitals_only ? text[i] : absl::ascii_toupper(text[i]);
    if (c < 'A' || c > last) continue;
    const bool starts = i == 0 || !IsWord(text[i - 1]);
    const bool ends = i + 1 == text.size() || !IsWord(text[i + 1]);
    if (starts && ends) return std::string(1, c);
  }
  return "";
}

bool HasDigitCommaDigit(absl::string_view text) {
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == ',' && absl::ascii_isdigit(text[i - 1]) && absl::ascii_isdigit(text[i + 1])) {
      return true;
    }
  }
  return false;
}

// A mark that touches a blank anywhere in the text goes everywhere, else it becomes a blank; full
// stops that no digit follows go, at most 32 of them.
std::string WithoutPunctuation(const std::string& text) {
  constexpr absl::string_view kMarks = ";/[]\"{}()=+\\_-><@`,?!";
  constexpr int kMostStops = 32;
  const bool digits = HasDigitCommaDigit(text);
  std::string out = text;
  for (const char mark : kMarks) {
    const std::string one(1, mark);
    const bool drop =
        digits || absl::StrContains(text, one + " ") || absl::StrContains(text, " " + one);
    absl::StrReplaceAll({{one, drop ? "" : " "}}, &out);
  }
  std::string kept;
  int stops = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const bool digit_follows = i + 1 < out.size() && absl::ascii_isdigit(out[i + 1]);
    if (out[i] == '.' && !digit_follows && stops < kMostStops) {
      ++stops;
    } else {
      kept += out[i];
    }
  }
  return kept;
}

// Text between `open` and `close`, or nothing.
bool Inside(absl::string_view text, absl::string_view open, absl::string_view close,
            absl::string_view* inside) {
  const size_t begin = text.find(open);
  if (begin == absl::string_view::npos) return false;
  const size_t end = text.find(close, begin + open.size());
  if (end == absl::string_view::npos) return false;
  *inside = text.substr(begin + open.size(), end - begin - open.size());
  return true;
}

}  // namespace

std::string CleanReply(absl::string_view reply) {
  absl::string_view inside = reply;
  if (!Inside(reply, "<answer>", "</answer>", &inside)) Inside(reply, "\\boxed{", "}", &inside);
  return std::string(absl::StripAsciiWhitespace(inside));
}

std::string ExtractMvbench(absl::string_view reply) {
  const absl::string_view text = absl::StripAsciiWhitespace(reply);
  if (text.size() > 2 && text[1] == '.') {
    const char letter = absl::ascii_toupper(text[0]);
    const absl::string_view rest = absl::StripLeadingAsciiWhitespace(text.substr(2));
    // The pattern wants the whole reply on one line after the blanks.
    if (letter >= 'A' && letter <= 'E' && !rest.empty() && !absl::StrContains(rest, '\n')) {
      return std::string(1, letter);
    }
  }
  std::string flat(text);
  std::replace_if(
      flat.begin(), flat.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return LoneLetter(WithoutPunctuation(flat), 'E', false);
}

std::string ExtractVideomme(absl::string_view reply) {
  return FirstCapital(reply, kGluedPhrases, 'D');
}

std::string ExtractLongvideobench(absl::string_view reply) {
  return FirstCapital(reply, kPhrases, 'E');
}

std::string ExtractMlvu(absl::string_view reply) {
  const size_t bracket = reply.find(')');
  if (bracket == absl::string_view::npos) return std::string(reply);
  return bracket == 0 ? "" : std::string(reply.substr(bracket - 1, 1));
}

std::string ExtractGeneric(absl::string_view reply, int num_options) {
  const absl::string_view text = absl::StripAsciiWhitespace(reply);
  if (num_options > 0) {
    return LoneLetter(text, static_cast<char>('A' + std::min(num_options, 26) - 1), true);
  }
  return std::string(absl::StripSuffix(text, "."));
}

}  // namespace videonsa::client
