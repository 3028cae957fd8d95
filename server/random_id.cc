#include "server/random_id.h"

#include <sys/random.h>

#include <array>
#include <cstdint>

#include "runtime/base/check.h"

namespace videonsa {

std::string RandomId() {
  std::array<uint8_t, 16> bytes;
  VNSA_CHECK_EQ(getrandom(bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  std::string id;
  uint32_t buffer = 0;
  int bits = 0;
  for (const uint8_t byte : bytes) {
    buffer = (buffer << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) {
      id.push_back("abcdefghijklmnopqrstuvwxyz234567"[(buffer >> (bits - 5)) & 31]);
    }
  }
  id.push_back("abcdefghijklmnopqrstuvwxyz234567"[(buffer << (5 - bits)) & 31]);
  return id;
}

uint64_t RandomBits() {
  uint64_t bits = 0;
  while (bits == 0) {
    VNSA_CHECK_EQ(getrandom(&bits, sizeof(bits), 0), static_cast<ssize_t>(sizeof(bits)));
  }
  return bits;
}

}  // namespace videonsa
