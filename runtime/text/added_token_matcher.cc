#include "runtime/text/added_token_matcher.h"

namespace videonsa {

void AddedTokenMatcher::Add(absl::string_view content, int32_t id, bool special) {
  if (content.empty()) return;
  begins_[static_cast<unsigned char>(content[0])] = true;
  uint64_t node = 0;
  for (const char c : content) {
    const uint64_t key = (node << 8) | static_cast<unsigned char>(c);
    const auto [child, is_new] = children_.emplace(key, static_cast<uint32_t>(nodes_.size()));
    node = child->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[node] = {id, special};
}

AddedTokenMatcher::Match AddedTokenMatcher::FindNext(absl::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<unsigned char>(text[begin])]) continue;
    Match match;
    uint64_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto child = children_.find((node << 8) | static_cast<unsigned char>(text[i]));
      if (child == children_.end()) break;
      node = child->second;
      if (nodes_[node].id >= 0) {
        match = {begin, i + 1 - begin, nodes_[node].id, nodes_[node].special};
      }
    }
    if (match.length > 0) return match;
  }
  return {};
}

}  // namespace videonsa
