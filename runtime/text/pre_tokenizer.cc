#define PCRE2_CODE_UNIT_WIDTH 8

#include "runtime/text/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/tokenizer_definition.h"
#include "runtime/text/utf8.h"

namespace videonsa {
namespace {

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct JitStackDeleter {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

// Enough for expressions that look at each character a few dozen times in one match.
constexpr uint64_t kBaseSteps = 50'000'000;
constexpr uint64_t kStepsPerByte = 64;

// Letters and numbers of Unicode 15 and 16, which the reference knows; the PCRE2 at hand may be
// older. Written as the inside of a character class.
constexpr char kNewLetters[] =
    "\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}"
    "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}"
    "\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}"
    "\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}"
    "\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}"
    "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}";
constexpr char kNewNumbers[] =
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}"
    "\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}"
    "\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}";

// Makes a pattern mean for PCRE2 what it means for the reference: \s is the property White_Space
// (PCRE2's also takes U+180E), and letters and numbers are those of Unicode 16.
std::string TranslatePattern(absl::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const absl::string_view rest = pattern.substr(i);
    const bool letters = absl::StartsWith(rest, "\\p{L}");
    if (letters || absl::StartsWith(rest, "\\p{N}")) {
      const char* added = letters ? kNewLetters : kNewNumbers;
      absl::StrAppend(&out, in_class ? "" : "[", rest.substr(0, 5), added, in_class ? "" : "]");
      i += 4;
    } else if (absl::StartsWith(rest, "\\s") || absl::StartsWith(rest, "\\S")) {
      absl::StrAppend(&out, rest[1] == 's' ? "\\p" : "\\P", "{White_Space}");
      ++i;
    } else if (rest[0] == '\\') {
      absl::StrAppend(&out, rest.substr(0, 2));
      ++i;
    } else {
      // A bracket that opens inside a class is an ordinary character or a POSIX name.
      if (rest[0] == '[') in_class = true;
      if (rest[0] == ']') in_class = false;
      out += rest[0];
    }
  }
  return out;
}

}  // namespace

class PreTokenizer::Pattern {
 public:
  explicit Pattern(pcre2_code* code) : code_(code) {}
  const pcre2_code* code() const { return code_.get(); }

 private:
  std::unique_ptr<pcre2_code, CodeDeleter> code_;
};

// What matching needs besides the pattern: one per call of Split.
class PreTokenizer::Scratch {
 public:
  explicit Scratch(size_t text_bytes)
      : data_(pcre2_match_data_create(16, nullptr)), context_(pcre2_match_context_create(nullptr)) {
    VNSA_CHECK(data_ != nullptr && context_ != nullptr) << "out of memory";
    const uint64_t steps = kBaseSteps + kStepsPerByte * text_bytes;
    pcre2_set_match_limit(context_.get(), static_cast<uint32_t>(std::min<uint64_t>(
                                              steps, std::numeric_limits<uint32_t>::max())));
  }

  // Returns pcre2_match's result; `begin` and `end` are set if it is positive.
  int Match(const Pattern& pattern, absl::string_view text, size_t from, size_t& begin,
            size_t& end) {
    int result = MatchOnce(pattern, text, from);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      stack_.reset(pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      result = MatchOnce(pattern, text, from);
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
    begin = offsets[0];
    end = offsets[1];
    return result;
  }

 private:
  int MatchOnce(const Pattern& pattern, absl::string_view text, size_t from) {
    return pcre2_match(pattern.code(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  std::unique_ptr<pcre2_match_data, MatchDataDeleter> data_;
  std::unique_ptr<pcre2_match_context, MatchContextDeleter> context_;
  std::unique_ptr<pcre2_jit_stack, JitStackDeleter> stack_;  // only once the default is too small
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    const std::vector<std::string>& patterns, absl::string_view file) {
  std::unique_ptr<PreTokenizer> splitter(new PreTokenizer());
  for (const std::string& pattern : patterns) {
    const std::string translated = TranslatePattern(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
    if (code == nullptr) {
      return ModelFileError(
          file, absl::StrCat("split pattern of ", pattern.size(), " bytes does not compile: error ",
                             error, " near byte ", offset));
    }
    // Without a compiler for this processor the interpreter gives the same matches, slower.
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    splitter->patterns_.push_back(std::make_unique<Pattern>(code));
  }
  return splitter;
}

absl::Status PreTokenizer::Split(absl::string_view text,
                                 absl::FunctionRef<void(absl::string_view piece)> piece) const {
  if (text.empty()) return absl::OkStatus();
  Scratch scratch(text.size());
  return SplitFrom(0, text, scratch, piece);
}

absl::Status PreTokenizer::SplitFrom(size_t level, absl::string_view text, Scratch& scratch,
                                     absl::FunctionRef<void(absl::string_view)> piece) const {
  if (level == patterns_.size()) {
    piece(text);
    return absl::OkStatus();
  }
  size_t piece_begin = 0;  // everything before is done
  size_t from = 0;         // next place to try; beyond piece_begin after an empty match
  while (from < text.size()) {
    size_t begin = 0, end = 0;
    const int result = scratch.Match(*patterns_[level], text, from, begin, end);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return MakeError(absl::StatusCode::kResourceExhausted, "TEXT_TOO_COMPLEX",
                       absl::StrCat("text of ", text.size(),
                                    " bytes: the tokenizer's split pattern gives up at byte ", from,
                                    " with code ", result));
    }
    // \K and lookbehind can put the beginning anywhere.
    begin = std::max(begin, piece_begin);
    if (begin > piece_begin) {
      VNSA_RETURN_IF_ERROR(
          SplitFrom(level + 1, text.substr(piece_begin, begin - piece_begin), scratch, piece));
      piece_begin = begin;
    }
    if (end > begin) {
      VNSA_RETURN_IF_ERROR(SplitFrom(level + 1, text.substr(begin, end - begin), scratch, piece));
      piece_begin = from = end;
    } else {
      from = std::max(begin, from);
      if (from < text.size()) from += NextUtf8Unit(text.substr(from)).length;
    }
  }
  if (piece_begin < text.size()) {
    return SplitFrom(level + 1, text.substr(piece_begin), scratch, piece);
  }
  return absl::OkStatus();
}

}  // namespace videonsa
