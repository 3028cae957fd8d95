#include "runtime/text/incremental_detokenizer.h"

#include "runtime/text/utf8.h"

namespace videonsa {

std::string IncrementalDetokenizer::Append(int32_t id) {
  std::string text;
  if (tokenizer_.IsSpecial(id)) return text;
  const absl::string_view bytes = tokenizer_.BytesOf(id);
  pending_.append(bytes.data(), bytes.size());
  pending_.erase(0, AppendUtf8Lossy(pending_, /*flush=*/false, text));
  return text;
}

std::string IncrementalDetokenizer::Finish() {
  std::string text;
  AppendUtf8Lossy(pending_, /*flush=*/true, text);
  pending_.clear();
  return text;
}

}  // namespace videonsa
