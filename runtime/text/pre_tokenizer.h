#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// Cuts text into pieces with regular expressions: every match and every stretch between two
/// matches is a piece; the pieces of one expression are cut again by the next.
///
/// Threads: const methods may be called from any thread.
class PreTokenizer {
 public:
  /// Errors: FAILED_PRECONDITION (MODEL_INVALID), naming `file`, for a pattern that does not
  ///         compile.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(
      const std::vector<std::string>& patterns, absl::string_view file);
  ~PreTokenizer();
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;

  /// Calls `piece` for every piece of `text`, in order. Requires: valid UTF-8.
  ///
  /// Errors: RESOURCE_EXHAUSTED (TEXT_TOO_COMPLEX) if a pattern needs too many steps on this text.
  absl::Status Split(absl::string_view text,
                     absl::FunctionRef<void(absl::string_view piece)> piece) const;

 private:
  class Pattern;
  class Scratch;

  PreTokenizer();
  absl::Status SplitFrom(size_t level, absl::string_view text, Scratch& scratch,
                         absl::FunctionRef<void(absl::string_view piece)> piece) const;

  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace videonsa
