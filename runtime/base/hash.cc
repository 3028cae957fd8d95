#include "runtime/base/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "absl/strings/escaping.h"
#include "runtime/base/check.h"

namespace videonsa {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  VNSA_CHECK_EQ(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr), 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(absl::string_view bytes) {
  VNSA_CHECK_EQ(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()), 1);
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  VNSA_CHECK_EQ(EVP_DigestFinal_ex(state_->context, digest.data(), nullptr), 1);
  state_.reset();
  return digest;
}

Sha256Digest Sha256Of(absl::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

Sha256Digest HmacSha256(absl::string_view key, absl::string_view message) {
  Sha256Digest digest;
  unsigned int size = 0;
  VNSA_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                  reinterpret_cast<const unsigned char*>(message.data()), message.size(),
                  digest.data(), &size) != nullptr);
  VNSA_CHECK_EQ(size, digest.size());
  return digest;
}

std::string HexOf(const Sha256Digest& digest) { return absl::BytesToHexString(BytesOf(digest)); }

namespace {

// kTables[k][b]: CRC of byte b followed by k zero bytes (slicing by 8).
struct CrcTables {
  uint32_t t[8][256];
  constexpr CrcTables() : t() {
    for (uint32_t b = 0; b < 256; ++b) {
      uint32_t crc = b;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0u);
      t[0][b] = crc;
    }
    for (uint32_t b = 0; b < 256; ++b) {
      for (int k = 1; k < 8; ++k) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 255];
    }
  }
};
constexpr CrcTables kCrc;

}  // namespace

uint32_t Crc32c(absl::string_view bytes, uint32_t crc) {
  const auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  size_t left = bytes.size();
  crc = ~crc;
  for (; left >= 8; p += 8, left -= 8) {
    const uint32_t low = crc ^ (p[0] | p[1] << 8 | p[2] << 16 | uint32_t{p[3]} << 24);
    crc = kCrc.t[7][low & 255] ^ kCrc.t[6][(low >> 8) & 255] ^ kCrc.t[5][(low >> 16) & 255] ^
          kCrc.t[4][low >> 24] ^ kCrc.t[3][p[4]] ^ kCrc.t[2][p[5]] ^ kCrc.t[1][p[6]] ^
          kCrc.t[0][p[7]];
  }
  for (; left > 0; ++p, --left) crc = (crc >> 8) ^ kCrc.t[0][(crc ^ *p) & 255];
  return ~crc;
}

}  // namespace videonsa
