#include "runtime/text/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/model_file.h"
#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer_json.h"
#include "runtime/text/utf8.h"
#include "runtime/text/vocab_files.h"

namespace videonsa {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  if (!HasModelFile(model_dir, "tokenizer.json") && HasModelFile(model_dir, "vocab.json")) {
    VNSA_ASSIGN_OR_RETURN(const TokenizerDefinition definition, ReadVocabFiles(model_dir));
    return Create(definition);
  }
  VNSA_ASSIGN_OR_RETURN(const std::string json,
                        ReadModelFile(model_dir, "tokenizer.json", kMaxTokenizerFileBytes));
  return FromJson(json);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(absl::string_view json) {
  VNSA_ASSIGN_OR_RETURN(const TokenizerDefinition definition, ParseTokenizerJson(json));
  return Create(definition);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(
    const TokenizerDefinition& definition) {
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer());
  VNSA_ASSIGN_OR_RETURN(tokenizer->bpe_, BpeModel::Create(definition));
  VNSA_ASSIGN_OR_RETURN(tokenizer->splitter_,
                        PreTokenizer::Create(definition.split_patterns, definition.file));
  tokenizer->nfc_ = definition.nfc;
  tokenizer->is_special_.resize(tokenizer->bpe_->id_limit());
  for (const AddedToken& token : definition.added_tokens) {
    if (token.content.size() > kMaxAddedTokenBytes) {
      return ModelFileError(definition.file,
                            absl::StrCat("added token ", token.id, " has ", token.content.size(),
                                         " bytes, limit ", kMaxAddedTokenBytes));
    }
    tokenizer->added_ids_[token.content] = token.id;
    if (token.special) tokenizer->is_special_[token.id] = true;
    if (token.normalized) {
      std::string storage;
      const absl::string_view content =
          definition.nfc ? NormalizeNfc(token.content, storage) : token.content;
      tokenizer->normalized_matcher_.Add(content, token.id, token.special);
    } else {
      tokenizer->raw_matcher_.Add(token.content, token.id, token.special);
    }
  }
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text) const {
  return EncodeText(text, /*take_special=*/false);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeWithSpecial(absl::string_view text) const {
  return EncodeText(text, /*take_special=*/true);
}

// Calls `plain` for the text between added tokens and appends the ids of the tokens. A special
// token that is not taken stays text, but what it covers is not searched again, as in the
// reference.
template <typename Plain>
absl::Status Tokenizer::SplitAdded(const AddedTokenMatcher& matcher, absl::string_view text,
                                   bool take_special, std::vector<int32_t>& ids, Plain plain) {
  size_t plain_begin = 0, from = 0;
  while (!matcher.empty()) {
    const AddedTokenMatcher::Match match = matcher.FindNext(text, from);
    if (match.length == 0) break;
    from = match.begin + match.length;
    if (match.special && !take_special) continue;
    VNSA_RETURN_IF_ERROR(plain(text.substr(plain_begin, match.begin - plain_begin)));
    ids.push_back(match.id);
    plain_begin = from;
  }
  return plain(text.substr(plain_begin));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeText(absl::string_view text,
                                                           bool take_special) const {
  if (text.size() > kMaxTextBytes) {
    return InvalidField("text", absl::StrCat(text.size(), " bytes, limit ", kMaxTextBytes));
  }
  if (const size_t invalid = FindInvalidUtf8(text); invalid != absl::string_view::npos) {
    return InvalidField("text", absl::StrCat("invalid UTF-8 at byte ", invalid));
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 1);
  std::string storage;
  const auto encode_pieces = [&](absl::string_view plain) {
    return splitter_->Split(plain, [&](absl::string_view piece) { bpe_->EncodePiece(piece, ids); });
  };
  const auto encode_segment = [&](absl::string_view segment) {
    const absl::string_view normalized = nfc_ ? NormalizeNfc(segment, storage) : segment;
    return SplitAdded(normalized_matcher_, normalized, take_special, ids, encode_pieces);
  };
  VNSA_RETURN_IF_ERROR(SplitAdded(raw_matcher_, text, take_special, ids, encode_segment));
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool keep_special) const {
  std::string bytes, text;
  for (const int32_t id : ids) {
    if (IsSpecial(id) && !keep_special) continue;
    const absl::string_view token = BytesOf(id);
    bytes.append(token.data(), token.size());
  }
  AppendUtf8Lossy(bytes, /*flush=*/true, text);
  return text;
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view content) const {
  const auto found = added_ids_.find(content);
  if (found == added_ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace videonsa
