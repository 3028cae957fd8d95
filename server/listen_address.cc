#include "server/listen_address.h"

#include <arpa/inet.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace videonsa {
namespace {

bool IsUnixSocket(absl::string_view address) { return absl::StartsWith(address, "unix:"); }

}  // namespace

bool IsLocalAddress(absl::string_view address) {
  if (IsUnixSocket(address)) return true;
  const std::string host(address.substr(0, address.rfind(':')));
  in_addr parsed{};
  // A name may begin with "127." and lead anywhere; an address may not.
  if (inet_pton(AF_INET, host.c_str(), &parsed) == 1) return ntohl(parsed.s_addr) >> 24 == 127;
  return host == "localhost" || host == "[::1]";
}

std::string BoundAddress(absl::string_view address, int port) {
  if (IsUnixSocket(address)) return std::string(address);
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace videonsa
