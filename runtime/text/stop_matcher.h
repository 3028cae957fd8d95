#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

inline constexpr size_t kMaxStopStrings = 8;
inline constexpr size_t kMaxStopBytes = 64;

/// Finds stop strings in text that arrives in fragments and holds back only what could still become
/// one. The result does not depend on how the text is cut.
///
/// The stop string that ends first counts, the longest of those that end together; the text before
/// it is the answer. Fragments of whole characters give fragments of whole characters.
///
/// Threads: one at a time.
class StopMatcher {
 public:
  /// Errors: INVALID_ARGUMENT (FIELD_INVALID): too many, empty, too long, or invalid UTF-8.
  static absl::StatusOr<StopMatcher> Create(const std::vector<std::string>& stops);

  /// Text of `fragment` and of what was held back that can be shown now. After a match it is the
  /// text before the stop string, and later calls return nothing.
  std::string Append(absl::string_view fragment);

  /// The end of the text: what was held back, nothing after a match.
  std::string Finish();

  /// The stop string that was found.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  /// A node of the Aho-Corasick automaton: the longest end of the text that begins a stop string.
  struct Node {
    uint32_t depth = 0;
    uint32_t fallback = 0;  ///< node of the longest proper end
    int32_t stop_idx = -1;  ///< longest stop string that ends here
  };

  StopMatcher() = default;
  void AddStop(const std::string& stop, int32_t idx);
  void LinkFallbacks();
  uint32_t Child(uint32_t node, unsigned char byte) const;  ///< 0 if there is none
  uint32_t Step(uint32_t node, unsigned char byte) const;

  std::vector<std::string> stops_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  absl::flat_hash_map<uint32_t, uint32_t> children_;  ///< by node << 8 | byte
  uint32_t node_ = 0;
  std::string held_;  ///< text not yet returned; its end is `node_`
  std::optional<std::string> matched_;
};

}  // namespace videonsa
