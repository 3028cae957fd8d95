#include "runtime/text/nfc.h"

#include <uninorm.h>

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

// Every code point below U+0300 is a starter that normalisation leaves alone and that composes only
// with a later character; the lead bytes of U+0300 and above are 0xCC and above.
bool HasOnlyInertCharacters(absl::string_view text) {
  for (const char byte : text) {
    if (static_cast<uint8_t>(byte) >= 0xCC) return false;
  }
  return true;
}

}  // namespace

absl::string_view NormalizeNfc(absl::string_view text, std::string& storage) {
  if (text.empty() || HasOnlyInertCharacters(text)) return text;
  size_t length = 0;
  const std::unique_ptr<uint8_t, decltype(&std::free)> normalized(
      u8_normalize(UNINORM_NFC, reinterpret_cast<const uint8_t*>(text.data()), text.size(), nullptr,
                   &length),
      &std::free);
  VNSA_CHECK(normalized != nullptr) << "out of memory normalising " << text.size() << " bytes";
  storage.assign(reinterpret_cast<const char*>(normalized.get()), length);
  return storage;
}

}  // namespace videonsa
