#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "runtime/text/tokenizer_definition.h"

namespace videonsa {

/// Finds added tokens in text: leftmost first, the longest of those, never overlapping.
///
/// Threads: const methods may be called from any thread.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin = 0;
    size_t length = 0;  ///< 0: nothing found
    int32_t id = 0;
    bool special = false;
  };

  /// Requires: contents of at most kMaxAddedTokenBytes. Empty contents are never found.
  void Add(absl::string_view content, int32_t id, bool special);

  bool empty() const { return nodes_.size() == 1; }

  /// The first match at or after `from`. Time is linear in the distance, times the longest content.
  Match FindNext(absl::string_view text, size_t from) const;

 private:
  struct Node {
    int32_t id = -1;  // -1: no token ends here
    bool special = false;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // by node << 8 | byte
  std::array<bool, 256> begins_ = {};                 // a token begins with this byte
};

}  // namespace videonsa
