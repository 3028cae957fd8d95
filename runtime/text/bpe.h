#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/text/tokenizer_definition.h"

namespace videonsa {

/// Byte-level BPE: bytes of one piece to token ids by merge rank, and ids back to bytes.
///
/// Threads: const methods may be called from any thread.
class BpeModel {
 public:
  /// Errors: FAILED_PRECONDITION (MODEL_INVALID): an id twice or out of range, a token twice, a
  ///         byte without a token, a merge of or into an unknown token, a special token that a
  ///         merge could make, an added token that disagrees with the vocabulary.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Create(const TokenizerDefinition& definition);

  BpeModel(const BpeModel&) = delete;
  BpeModel& operator=(const BpeModel&) = delete;

  /// Appends the ids of one piece. Time is O(n log n) in the length of the piece.
  void EncodePiece(absl::string_view piece, std::vector<int32_t>& ids) const;

  /// Bytes that `id` stands for, empty for ids without a token; valid as long as the model.
  absl::string_view BytesOf(int32_t id) const {
    return static_cast<size_t>(id) < bytes_by_id_.size() ? bytes_by_id_[id] : absl::string_view();
  }

  /// One past the largest id.
  int32_t id_limit() const { return static_cast<int32_t>(bytes_by_id_.size()); }

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  using VocabMap = absl::flat_hash_map<absl::string_view, int32_t>;

  BpeModel() = default;
  absl::Status AddTokens(const TokenizerDefinition& definition, VocabMap& vocab);
  absl::Status AddMerges(const TokenizerDefinition& definition, const VocabMap& vocab);
  /// Refuses special tokens that text could become.
  absl::Status CheckSpecial(const TokenizerDefinition& definition);
  void MergeShort(absl::string_view piece, std::vector<int32_t>& ids) const;
  void MergeLong(absl::string_view piece, std::vector<int32_t>& ids) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;
  /// The id of a piece that is one token after merging, or -1.
  int32_t WholePieceId(absl::string_view piece) const;

  bool ignore_merges_ = false;
  std::vector<std::string> storage_;            ///< owns the bytes below
  std::vector<absl::string_view> bytes_by_id_;  ///< empty: no token
  int32_t byte_id_[256] = {};
  absl::flat_hash_map<uint64_t, Merge> merges_;                  ///< by left id << 32 | right id
  absl::flat_hash_map<absl::string_view, int32_t> id_by_bytes_;  ///< vocabulary, special excepted
  /// By id: whether merging the token's bytes gives the token. Filled when first asked: 0 unknown,
  /// 1 yes, 2 no; every thread computes the same.
  mutable std::vector<std::atomic<uint8_t>> is_reachable_;
};

}  // namespace videonsa
