#include "runtime/engine/prefix_keys.h"

#include <algorithm>
#include <limits>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

absl::string_view BytesOf(const int32_t* values, size_t count) {
  return absl::string_view(reinterpret_cast<const char*>(values), count * sizeof(int32_t));
}

absl::string_view BytesOf(const Sha256Digest& digest) {
  return absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size());
}

Sha256Digest FirstLink(const SequenceSpec& spec, absl::string_view salt) {
  const int32_t settings[] = {static_cast<int32_t>(spec.attention.semantics),
                              spec.attention.selected_blocks, spec.attention.window_tokens};
  Sha256 hash;
  hash.Update(salt);
  hash.Update(BytesOf(settings, 3));
  return hash.Finish();
}

}  // namespace

std::vector<Sha256Digest> PrefixKeys(const SequenceSpec& spec, absl::string_view salt) {
  if (NeedsWholePrompt(spec.attention.semantics)) return {};
  const int length = static_cast<int>(spec.token_ids.size());
  VNSA_CHECK_EQ(spec.positions.size(), 3 * spec.token_ids.size());
  int end = length;
  for (const VisionSpan& span : spec.vision_spans) {
    const size_t visual = static_cast<size_t>(span.visual_idx);
    if (visual >= spec.visual_keys.size() || spec.visual_keys[visual] == Sha256Digest{}) {
      end = std::min(end, span.token_begin);
    }
  }
  std::vector<Sha256Digest> keys;
  Sha256Digest link = FirstLink(spec, salt);
  for (int begin = 0; begin + kPageTokens <= end; begin += kPageTokens) {
    Sha256 hash;
    hash.Update(BytesOf(link));
    hash.Update(BytesOf(spec.token_ids.data() + begin, kPageTokens));
    for (int axis = 0; axis < 3; ++axis) {
      hash.Update(BytesOf(spec.positions.data() + axis * length + begin, kPageTokens));
    }
    for (const VisionSpan& span : spec.vision_spans) {
      const int first = std::max(begin, span.token_begin);
      const int last = std::min(begin + kPageTokens, span.token_begin + span.num_tokens);
      if (first >= last) continue;
      const int32_t place[] = {first - begin, last - begin, first - span.token_begin};
      hash.Update(BytesOf(place, 3));
      hash.Update(BytesOf(spec.visual_keys[span.visual_idx]));
    }
    link = hash.Finish();
    keys.push_back(link);
  }
  return keys;
}

}  // namespace videonsa
