#include "runtime/text/stop_matcher.h"

#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/text/utf8.h"

namespace videonsa {

absl::StatusOr<StopMatcher> StopMatcher::Create(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStopStrings) {
    return InvalidField("stop", absl::StrCat(stops.size(), " strings, limit ", kMaxStopStrings));
  }
  StopMatcher matcher;
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string field = absl::StrCat("stop[", i, "]");
    if (stops[i].empty()) return InvalidField(field, "empty");
    if (stops[i].size() > kMaxStopBytes) {
      return InvalidField(field, absl::StrCat(stops[i].size(), " bytes, limit ", kMaxStopBytes));
    }
    if (FindInvalidUtf8(stops[i]) != absl::string_view::npos) {
      return InvalidField(field, "invalid UTF-8");
    }
    matcher.AddStop(stops[i], static_cast<int32_t>(i));
  }
  matcher.stops_ = stops;
  matcher.LinkFallbacks();
  return matcher;
}

void StopMatcher::AddStop(const std::string& stop, int32_t idx) {
  uint32_t node = 0;
  for (const char c : stop) {
    const uint32_t key = (node << 8) | static_cast<unsigned char>(c);
    const auto [child, is_new] = children_.emplace(key, static_cast<uint32_t>(nodes_.size()));
    const uint32_t depth = nodes_[node].depth + 1;
    node = child->second;
    if (is_new) nodes_.push_back({.depth = depth});
  }
  if (nodes_[node].stop_idx < 0) nodes_[node].stop_idx = idx;
}

void StopMatcher::LinkFallbacks() {
  std::queue<uint32_t> breadth_first;
  breadth_first.push(0);
  while (!breadth_first.empty()) {
    const uint32_t parent = breadth_first.front();
    breadth_first.pop();
    for (int byte = 0; byte < 256; ++byte) {
      const uint32_t child = Child(parent, static_cast<unsigned char>(byte));
      if (child == 0) continue;
      Node& node = nodes_[child];
      node.fallback =
          parent == 0 ? 0 : Step(nodes_[parent].fallback, static_cast<unsigned char>(byte));
      // Its own stop string is longer than any that its fallback ends with.
      if (node.stop_idx < 0) node.stop_idx = nodes_[node.fallback].stop_idx;
      breadth_first.push(child);
    }
  }
}

uint32_t StopMatcher::Child(uint32_t node, unsigned char byte) const {
  const auto child = children_.find((node << 8) | byte);
  return child == children_.end() ? 0 : child->second;
}

uint32_t StopMatcher::Step(uint32_t node, unsigned char byte) const {
  while (true) {
    if (const uint32_t child = Child(node, byte); child != 0) return child;
    if (node == 0) return 0;
    node = nodes_[node].fallback;
  }
}

std::string StopMatcher::Append(absl::string_view fragment) {
  if (matched_.has_value()) return "";
  if (stops_.empty()) return std::string(fragment);
  for (const char c : fragment) {
    held_.push_back(c);
    node_ = Step(node_, static_cast<unsigned char>(c));
    if (const int32_t idx = nodes_[node_].stop_idx; idx >= 0) {
      matched_ = stops_[idx];
      held_.resize(held_.size() - matched_->size());
      return std::exchange(held_, "");
    }
  }
  std::string shown = held_.substr(0, held_.size() - nodes_[node_].depth);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::Finish() {
  node_ = 0;
  return std::exchange(held_, "");
}

}  // namespace videonsa
