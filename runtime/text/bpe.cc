#include "runtime/text/bpe.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/byte_alphabet.h"

namespace videonsa {
namespace {

// Up to this many bytes a scan over all pairs is faster than a heap.
constexpr size_t kShortPieceBytes = 64;
// Longer tokens are not looked up whole: few exist, and hashing would repeat the reading.
constexpr size_t kMaxWholePieceBytes = 256;

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

std::string Quote(absl::string_view token) {
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(token.substr(0, 64)), "\"");
}

}  // namespace

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(const TokenizerDefinition& definition) {
  std::unique_ptr<BpeModel> model(new BpeModel());
  model->ignore_merges_ = definition.ignore_merges;
  VocabMap vocab;
  VNSA_RETURN_IF_ERROR(model->AddTokens(definition, vocab));
  VNSA_RETURN_IF_ERROR(model->AddMerges(definition, vocab));
  VNSA_RETURN_IF_ERROR(model->CheckSpecial(definition));
  model->is_reachable_ = std::vector<std::atomic<uint8_t>>(model->bytes_by_id_.size());
  return model;
}

absl::Status BpeModel::AddTokens(const TokenizerDefinition& definition, VocabMap& vocab) {
  const auto error = [&definition](absl::string_view problem) {
    return ModelFileError(definition.file, problem);
  };
  std::vector<absl::string_view> text_by_id;  // token as written, to see that ids are unique
  storage_.reserve(definition.vocab.size() + definition.added_tokens.size());
  vocab.reserve(definition.vocab.size());
  const auto add = [&](absl::string_view text, int32_t id) -> absl::Status {
    if (id < 0 || id >= kMaxTokenIds) {
      return error(absl::StrCat("token ", Quote(text), " has id ", id, ", limit ", kMaxTokenIds));
    }
    if (text.empty()) return error(absl::StrCat("token ", id, " is empty"));
    if (static_cast<size_t>(id) >= text_by_id.size()) {
      text_by_id.resize(id + 1);
      bytes_by_id_.resize(id + 1);
    }
    if (!text_by_id[id].empty() && text_by_id[id] != text) {
      return error(absl::StrCat("tokens ", Quote(text_by_id[id]), " and ", Quote(text),
                                " have the same id ", id));
    }
    text_by_id[id] = text;
    // As the reference decodes: a token with a character outside the alphabet stands for itself.
    std::optional<std::string> bytes = BytesOfAlphabetText(text);
    storage_.push_back(bytes.has_value() ? *std::move(bytes) : std::string(text));
    bytes_by_id_[id] = storage_.back();
    return absl::OkStatus();
  };
  for (const auto& [text, id] : definition.vocab) {
    if (!vocab.emplace(text, id).second) {
      return error(absl::StrCat("token ", Quote(text), " occurs twice in the vocabulary"));
    }
    VNSA_RETURN_IF_ERROR(add(text, id));
    if (BytesOfAlphabetText(text).has_value()) id_by_bytes_.emplace(bytes_by_id_[id], id);
  }
  absl::flat_hash_map<absl::string_view, int32_t> added;
  for (const AddedToken& token : definition.added_tokens) {
    const auto same = added.emplace(token.content, token.id).first;
    const auto in_vocab = vocab.find(token.content);
    if (same->second != token.id || (in_vocab != vocab.end() && in_vocab->second != token.id)) {
      return error(absl::StrCat("added token ", Quote(token.content), " has two ids, ", token.id,
                                " and ",
                                same->second != token.id ? same->second : in_vocab->second));
    }
    if (in_vocab == vocab.end()) VNSA_RETURN_IF_ERROR(add(token.content, token.id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = vocab.find(ByteCharacter(static_cast<unsigned char>(byte)));
    if (found == vocab.end()) {
      return error(absl::StrFormat("no token for byte 0x%02x", byte));
    }
    byte_id_[byte] = found->second;
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerges(const TokenizerDefinition& definition, const VocabMap& vocab) {
  if (definition.merges.size() > static_cast<size_t>(kMaxTokenIds)) {
    return ModelFileError(definition.file,
                          absl::StrCat(definition.merges.size(), " merges, limit ", kMaxTokenIds));
  }
  merges_.reserve(definition.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < definition.merges.size(); ++rank) {
    const auto& [left, right] = definition.merges[rank];
    joined.assign(left).append(right);
    int32_t ids[3] = {};
    const absl::string_view names[3] = {left, right, joined};
    for (int i = 0; i < 3; ++i) {
      const auto found = vocab.find(names[i]);
      if (found == vocab.end()) {
        return ModelFileError(definition.file,
                              absl::StrCat("merge ", rank, " names the token ", Quote(names[i]),
                                           ", which is not in the vocabulary"));
      }
      ids[i] = found->second;
    }
    // As in the reference, the last of two equal pairs counts.
    merges_.insert_or_assign(PairKey(ids[0], ids[1]), Merge{static_cast<uint32_t>(rank), ids[2]});
  }
  return absl::OkStatus();
}

absl::Status BpeModel::CheckSpecial(const TokenizerDefinition& definition) {
  absl::flat_hash_set<int32_t> special;
  for (const AddedToken& token : definition.added_tokens) {
    if (token.special) special.insert(token.id);
  }
  const auto error = [&](int32_t id, absl::string_view how) {
    return ModelFileError(definition.file,
                          absl::StrCat("special token ", Quote(BytesOf(id)), " with id ", id, how));
  };
  for (const int32_t id : byte_id_) {
    if (special.contains(id)) return error(id, " is the token of a byte");
  }
  for (const auto& [pair, merge] : merges_) {
    if (special.contains(merge.id)) return error(merge.id, " is the result of a merge");
  }
  for (const int32_t id : special) {
    const auto found = id_by_bytes_.find(BytesOf(id));
    if (found != id_by_bytes_.end() && found->second == id) id_by_bytes_.erase(found);
  }
  return absl::OkStatus();
}

const BpeModel::Merge* BpeModel::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

int32_t BpeModel::WholePieceId(absl::string_view piece) const {
  if (piece.size() > kMaxWholePieceBytes) return -1;
  const auto found = id_by_bytes_.find(piece);
  if (found == id_by_bytes_.end()) return -1;
  const int32_t id = found->second;
  if (ignore_merges_) return id;
  std::atomic<uint8_t>& state = is_reachable_[id];
  uint8_t known = state.load(std::memory_order_relaxed);
  if (known == 0) {
    std::vector<int32_t> ids;
    if (piece.size() <= kShortPieceBytes) {
      MergeShort(piece, ids);
    } else {
      MergeLong(piece, ids);
    }
    known = ids.size() == 1 && ids[0] == id ? 1 : 2;
    state.store(known, std::memory_order_relaxed);
  }
  return known == 1 ? id : -1;
}

void BpeModel::EncodePiece(absl::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (piece.size() == 1) {
    ids.push_back(byte_id_[static_cast<unsigned char>(piece[0])]);
  } else if (const int32_t id = WholePieceId(piece); id >= 0) {
    ids.push_back(id);
  } else if (piece.size() <= kShortPieceBytes) {
    MergeShort(piece, ids);
  } else {
    MergeLong(piece, ids);
  }
}

// Merges the pair of lowest rank, the leftmost of equals, until no pair merges. The rank of each
// pair is kept beside its left token.
void BpeModel::MergeShort(absl::string_view piece, std::vector<int32_t>& ids) const {
  constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  std::array<int32_t, kShortPieceBytes> token;
  std::array<Merge, kShortPieceBytes> merge;
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) token[i] = byte_id_[static_cast<unsigned char>(piece[i])];
  const auto look_up = [&](size_t i) {
    const Merge* found = i + 1 < count ? FindMerge(token[i], token[i + 1]) : nullptr;
    merge[i] = found == nullptr ? Merge{kNone, -1} : *found;
  };
  for (size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merge[i].rank < merge[best].rank) best = i;
    }
    if (merge[best].rank == kNone) break;
    token[best] = merge[best].id;
    std::copy(token.begin() + best + 2, token.begin() + count, token.begin() + best + 1);
    std::copy(merge.begin() + best + 2, merge.begin() + count, merge.begin() + best + 1);
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.insert(ids.end(), token.begin(), token.begin() + count);
}

// The same order of merges with a heap of (rank, place) and a linked list of tokens; entries whose
// pair has changed since are skipped.
void BpeModel::MergeLong(absl::string_view piece, std::vector<int32_t>& ids) const {
  constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
  struct Symbol {
    int32_t id;  // -1: merged into its left neighbour
    uint32_t previous, next;
  };
  const uint32_t count = static_cast<uint32_t>(piece.size());
  std::vector<Symbol> symbols(count);
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_id_[static_cast<unsigned char>(piece[i])], i == 0 ? kEnd : i - 1,
                  i + 1 == count ? kEnd : i + 1};
  }
  const auto entry_of = [&](uint32_t place, uint64_t& entry) {
    const Merge* merge = FindMerge(symbols[place].id, symbols[symbols[place].next].id);
    if (merge != nullptr) entry = (static_cast<uint64_t>(merge->rank) << 32) | place;
    return merge;
  };
  std::vector<uint64_t> entries;
  uint64_t entry = 0;
  for (uint32_t i = 0; i + 1 < count; ++i) {
    if (entry_of(i, entry) != nullptr) entries.push_back(entry);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<uint64_t>> heap(
      std::greater<uint64_t>(), std::move(entries));
  while (!heap.empty()) {
    const uint64_t top = heap.top();
    heap.pop();
    const uint32_t place = static_cast<uint32_t>(top);
    Symbol& left = symbols[place];
    if (left.id < 0 || left.next == kEnd) continue;
    const Merge* merge = entry_of(place, entry);
    if (merge == nullptr || entry != top) continue;
    Symbol& right = symbols[left.next];
    left.id = merge->id;
    right.id = -1;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = place;
    if (left.next != kEnd && entry_of(place, entry) != nullptr) heap.push(entry);
    if (left.previous != kEnd && entry_of(left.previous, entry) != nullptr) heap.push(entry);
  }
  for (uint32_t i = 0; i != kEnd; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace videonsa
