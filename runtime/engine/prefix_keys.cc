#include "runtime/engine/prefix_keys.h"

#include <algorithm>
#include <limits>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

absl::string_view RowBytes(const int32_t* values, size_t count) {
  return absl::string_view(reinterpret_cast<const char*>(values), count * sizeof(int32_t));
}

Sha256Digest FirstLink(const SequenceSpec& spec, absl::string_view salt) {
  const int32_t settings[] = {static_cast<int32_t>(spec.attention.semantics),
                              spec.attention.selected_blocks, spec.attention.window_tokens};
  Sha256 hash;
  hash.Update(salt);
  hash.Update(RowBytes(settings, 3));
  return hash.Finish();
}

// Rows of one page: tokens, positions [3][kPageTokens].
struct PageRows {
  int32_t tokens[kPageTokens];
  int32_t positions[3][kPageTokens];
};

// The key of the page of rows from `begin` on, after the page of key `link`.
Sha256Digest NextLink(const Sha256Digest& link, const SequenceSpec& spec, int begin,
                      const PageRows& rows) {
  Sha256 hash;
  hash.Update(BytesOf(link));
  hash.Update(RowBytes(rows.tokens, kPageTokens));
  for (const auto& axis : rows.positions) hash.Update(RowBytes(axis, kPageTokens));
  for (const VisionSpan& span : spec.vision_spans) {
    const int first = std::max(begin, span.token_begin);
    const int last = std::min(begin + kPageTokens, span.token_begin + span.num_tokens);
    if (first >= last) continue;
    const int32_t place[] = {first - begin, last - begin, first - span.token_begin};
    hash.Update(RowBytes(place, 3));
    hash.Update(BytesOf(spec.visual_keys[span.visual_idx]));
  }
  return hash.Finish();
}

// Copies prompt rows [begin, end) to the head of `rows`.
void TakePromptRows(const SequenceSpec& spec, int begin, int end, PageRows& rows) {
  const size_t length = spec.token_ids.size();
  std::copy(spec.token_ids.begin() + begin, spec.token_ids.begin() + end, rows.tokens);
  for (int axis = 0; axis < 3; ++axis) {
    const int32_t* const from = spec.positions.data() + axis * length;
    std::copy(from + begin, from + end, rows.positions[axis]);
  }
}

}  // namespace

std::vector<Sha256Digest> PrefixKeys(const SequenceSpec& spec, absl::string_view salt) {
  if (NeedsWholePrompt(spec.attention.semantics)) return {};
  VNSA_CHECK_EQ(spec.positions.size(), 3 * spec.token_ids.size());
  int end = static_cast<int>(spec.token_ids.size());
  for (const VisionSpan& span : spec.vision_spans) {
    const size_t visual = static_cast<size_t>(span.visual_idx);
    if (visual >= spec.visual_keys.size() || spec.visual_keys[visual] == Sha256Digest{}) {
      end = std::min(end, span.token_begin);
    }
  }
  std::vector<Sha256Digest> keys;
  Sha256Digest link = FirstLink(spec, salt);
  PageRows rows;
  for (int begin = 0; begin + kPageTokens <= end; begin += kPageTokens) {
    TakePromptRows(spec, begin, begin + kPageTokens, rows);
    link = NextLink(link, spec, begin, rows);
    keys.push_back(link);
  }
  return keys;
}

std::vector<Sha256Digest> MorePrefixKeys(const SequenceSpec& spec, absl::string_view salt,
                                         const std::vector<Sha256Digest>& keys,
                                         absl::Span<const int32_t> rows) {
  const int length = static_cast<int>(spec.token_ids.size());
  const int known = static_cast<int>(keys.size()) * kPageTokens;
  if (NeedsWholePrompt(spec.attention.semantics) || length - known >= kPageTokens) return {};
  // A visual of unknown content may stand behind the last full page.
  for (const VisionSpan& span : spec.vision_spans) {
    const size_t visual = static_cast<size_t>(span.visual_idx);
    if (visual >= spec.visual_keys.size() || spec.visual_keys[visual] == Sha256Digest{}) return {};
  }
  std::vector<Sha256Digest> more;
  Sha256Digest link = keys.empty() ? FirstLink(spec, salt) : keys.back();
  const int end = length + static_cast<int>(rows.size());
  PageRows page;
  for (int begin = known; begin + kPageTokens <= end; begin += kPageTokens) {
    const int own = std::max(length - begin, 0);  // of the prompt, only in the first
    if (own > 0) TakePromptRows(spec, begin, length, page);
    for (int i = own; i < kPageTokens; ++i) {
      const int row = begin + i - length;
      page.tokens[i] = rows[row];
      for (auto& axis : page.positions) axis[i] = spec.next_position + row;
    }
    link = NextLink(link, spec, begin, page);
    more.push_back(link);
  }
  return more;
}

}  // namespace videonsa
