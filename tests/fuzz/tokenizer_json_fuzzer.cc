// Any bytes as tokenizer.json: refused with a reason, or usable without special tokens from text.
#include <cstddef>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = Tokenizer::FromJson(bytes);
  if (!tokenizer.ok()) {
    VNSA_CHECK(GetErrorInfo(tokenizer.status()).has_value()) << tokenizer.status();
    return 0;
  }
  const absl::string_view text = "The thing <|im_end|>\n\xE4\xB8\xAD 12";
  const auto ids = (*tokenizer)->Encode(text);
  if (!ids.ok()) return 0;
  for (const int32_t id : *ids) VNSA_CHECK(!(*tokenizer)->IsSpecial(id)) << id;
  return 0;
}
