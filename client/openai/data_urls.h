#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace videonsa::openai {

/// A JSON body without its large data: URLs, so that megabytes of base64 need not pass a JSON
/// parser character by character and be copied by it.
///
/// Taken out is a text of at least `least` bytes that is the value of "url", "video_url" or
/// "image_url", begins with "data:" and consists of printable ASCII without escapes: such a text
/// means the same wherever it stands. Everything else, broken JSON too, is left to the parser.
/// Lifetime: `body` outlives it.
class DataUrls {
 public:
  static constexpr size_t kLeastBytes = 4096;

  DataUrls() = default;
  explicit DataUrls(absl::string_view body, size_t least = kLeastBytes);

  /// What to parse: `body` itself if nothing was taken out.
  absl::string_view json() const { return urls_.empty() ? body_ : absl::string_view(json_); }
  /// The URL that stood where the parser found `text`: one that was taken out, or `text` itself.
  absl::string_view Original(absl::string_view text) const;

 private:
  absl::string_view body_;
  std::string json_;
  std::vector<absl::string_view> urls_;
};

}  // namespace videonsa::openai
