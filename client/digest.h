#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace videonsa::client {

/// Running SHA-256 (FIPS 180-4) over bytes that arrive in pieces.
///
/// Threads: one at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::string_view bytes);
  /// Ends the computation and returns the 32 raw bytes; no method may be called afterwards.
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Lower-case hexadecimal form of raw bytes.
std::string HexOf(absl::string_view bytes);

/// CRC32C (Castagnoli, RFC 3720 B.4) of `bytes`; `crc` is the value of what came before.
uint32_t Crc32c(absl::string_view bytes, uint32_t crc = 0);

/// A random UUID (version 4) from the system's generator.
std::string RandomUuid();

/// The UUID (version 8, custom) made of the first 16 bytes of a digest: equal content, equal id.
///
/// Requires: digest holds at least 16 bytes.
std::string UuidOfDigest(absl::string_view digest);

}  // namespace videonsa::client
