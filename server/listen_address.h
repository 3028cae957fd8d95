#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// Whether only this machine can reach `address`: a unix socket, or a port of the loopback written
/// as an address or as "localhost".
bool IsLocalAddress(absl::string_view address);

/// `address` as it came to be: with `port` where it asked for any; a unix socket as it is.
std::string BoundAddress(absl::string_view address, int port);

}  // namespace videonsa
