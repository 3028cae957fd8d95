#pragma once

#include <cstdint>
#include <string>

namespace videonsa {

/// 128 bits from the kernel's generator as 26 lower-case base32 characters (RFC 4648): unguessable.
std::string RandomId();

/// 64 random bits, never all zero.
uint64_t RandomBits();

}  // namespace videonsa
