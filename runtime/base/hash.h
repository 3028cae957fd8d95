#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// A SHA-256 digest.
using Sha256Digest = std::array<uint8_t, 32>;

/// Running SHA-256 (FIPS 180-4) over bytes that arrive in pieces.
///
/// Threads: one at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(absl::string_view bytes);
  /// Ends the computation; no method may be called afterwards.
  Sha256Digest Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// SHA-256 of `bytes`.
Sha256Digest Sha256Of(absl::string_view bytes);

/// HMAC-SHA256 (RFC 2104) of `message` under `key`.
Sha256Digest HmacSha256(absl::string_view key, absl::string_view message);

/// The bytes of a digest as text, valid as long as `digest`.
inline absl::string_view BytesOf(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

/// Lower-case hexadecimal form, 64 characters.
std::string HexOf(const Sha256Digest& digest);

/// CRC32C (Castagnoli, RFC 3720 B.4) of `bytes`; `crc` is the value of what came before.
uint32_t Crc32c(absl::string_view bytes, uint32_t crc = 0);

}  // namespace videonsa
