#pragma once

#include <string>

namespace videonsa {

/// 128 bits from the kernel's generator as 26 lower-case base32 characters (RFC 4648): unguessable.
std::string RandomId();

}  // namespace videonsa
