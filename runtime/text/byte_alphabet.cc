#include "runtime/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "runtime/text/utf8.h"

namespace videonsa {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;  // one past the last code point in use

struct Alphabet {
  std::array<std::string, 256> character;
  std::array<int16_t, kAlphabetEnd> byte;  // -1: not in the alphabet

  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int value = 0; value < 256; ++value) {
      const bool itself =
          (value >= 33 && value <= 126) || (value >= 161 && value <= 172) || value >= 174;
      const char32_t code_point = itself ? static_cast<char32_t>(value) : next++;
      AppendUtf8(code_point, character[value]);
      byte[code_point] = static_cast<int16_t>(value);
    }
  }
};

const Alphabet& GetAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

absl::string_view ByteCharacter(unsigned char byte) { return GetAlphabet().character[byte]; }

std::optional<std::string> BytesOfAlphabetText(absl::string_view token) {
  const Alphabet& alphabet = GetAlphabet();
  std::string bytes;
  while (!token.empty()) {
    const char32_t code_point = DecodeUtf8(token);
    if (code_point >= static_cast<char32_t>(kAlphabetEnd) || alphabet.byte[code_point] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(alphabet.byte[code_point]));
    token.remove_prefix(code_point < 0x80 ? 1 : 2);
  }
  return bytes;
}

std::string AlphabetTextOf(absl::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const absl::string_view character = ByteCharacter(static_cast<unsigned char>(byte));
    text.append(character.data(), character.size());
  }
  return text;
}

}  // namespace videonsa
