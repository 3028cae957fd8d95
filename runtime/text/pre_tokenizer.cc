#define PCRE2_CODE_UNIT_WIDTH 8

#include "runtime/text/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <limits>

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

// The reference's \s is the Unicode property White_Space; PCRE2's also takes U+180E.
std::string TranslatePattern(absl::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out += "\\p{White_Space}";
    } else if (escaped == 'S') {
      out += "\\P{White_Space}";
    } else {
      out += '\\';
      out += escaped;
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
      : data_(pcre2_match_data_create(16, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(32 * 1024, 4 * 1024 * 1024, nullptr)) {
    VNSA_CHECK(data_ != nullptr && context_ != nullptr) << "out of memory";
    const uint64_t steps = kBaseSteps + kStepsPerByte * text_bytes;
    pcre2_set_match_limit(context_.get(), static_cast<uint32_t>(std::min<uint64_t>(
                                              steps, std::numeric_limits<uint32_t>::max())));
    if (stack_ != nullptr) pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
  }

  // Returns pcre2_match's result; `begin` and `end` are set if it is positive.
  int Match(const Pattern& pattern, absl::string_view text, size_t from, size_t& begin,
            size_t& end) {
    const int result =
        pcre2_match(pattern.code(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                    PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
    begin = offsets[0];
    end = offsets[1];
    return result;
  }

 private:
  std::unique_ptr<pcre2_match_data, MatchDataDeleter> data_;
  std::unique_ptr<pcre2_match_context, MatchContextDeleter> context_;
  std::unique_ptr<pcre2_jit_stack, JitStackDeleter> stack_;
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
