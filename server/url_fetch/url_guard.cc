#include "server/url_fetch/url_guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr size_t kMaxUrlBytes = 2048;
constexpr int kMappedBits = 96;
constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct Range {
  uint32_t base;
  int bits;
};
// IPv4 that is not global unicast (IANA special-purpose registry).
constexpr Range kSpecialV4[] = {
    {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16},
    {0xac100000, 12}, {0xc0000000, 24}, {0xc0000200, 24}, {0xc0586300, 24}, {0xc0a80000, 16},
    {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 4},  {0xf0000000, 4}};

bool PrefixEqual(const uint8_t* a, const uint8_t* b, int bits) {
  const int bytes = bits / 8;
  if (std::memcmp(a, b, bytes) != 0) return false;
  const int rest = bits % 8;
  return rest == 0 || ((a[bytes] ^ b[bytes]) >> (8 - rest)) == 0;
}

bool GlobalV4(uint32_t address) {
  return std::none_of(std::begin(kSpecialV4), std::end(kSpecialV4), [&](const Range& range) {
    return (address >> (32 - range.bits)) == (range.base >> (32 - range.bits));
  });
}

uint32_t V4At(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

bool GlobalUnicast(const uint8_t address[16]) {
  if (PrefixEqual(address, kMappedPrefix, kMappedBits)) return GlobalV4(V4At(address + 12));
  if ((address[0] & 0xe0) != 0x20) return false;  // only 2000::/3 is global unicast
  const uint32_t head = V4At(address);
  if (head == 0x20010db8) return false;                   // 2001:db8::/32, documentation
  if ((head >> 9) == (0x20010000u >> 9)) return false;    // 2001::/23, protocol assignments
  if ((head >> 16) == 0x2002) return false;               // 6to4 carries any IPv4
  if ((head >> 12) == (0x3fff0000u >> 12)) return false;  // 3fff::/20, documentation
  return true;
}

// 16 bytes of an address, IPv4 mapped; false for other families.
bool BytesOf(const sockaddr& address, uint8_t out[16]) {
  if (address.sa_family == AF_INET) {
    std::memcpy(out, kMappedPrefix, sizeof(kMappedPrefix));
    std::memcpy(out + 12, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
    return true;
  }
  if (address.sa_family != AF_INET6) return false;
  std::memcpy(out, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, 16);
  return true;
}

// Printable ASCII without what parsers have read differently.
bool PlainText(absl::string_view url) {
  return std::all_of(url.begin(), url.end(), [](char c) {
    return c > ' ' && c < 0x7f && std::strchr("\\\"<>^`{|}", c) == nullptr;
  });
}

// A name of letters, digits and hyphens with at least one letter in its last label, so that no
// spelling of an IP address is one.
bool IsHostName(absl::string_view host) {
  if (host.empty() || host.size() > 253 || host.front() == '.' || host.back() == '.') return false;
  const bool plain = std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '.';
  });
  const absl::string_view last = host.substr(host.rfind('.') + 1);
  const bool hex = absl::StartsWithIgnoreCase(last, "0x");
  return plain && !hex && host.find("..") == absl::string_view::npos &&
         std::any_of(last.begin(), last.end(), [](char c) { return absl::ascii_isalpha(c); });
}

// One component of a parsed URL, empty if it has none.
std::string PartOf(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return "";
  std::string out = text;
  curl_free(text);
  return out;
}

}  // namespace

absl::StatusOr<IpNetwork> IpNetwork::Parse(absl::string_view text) {
  IpNetwork network;
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  const bool v4 = inet_pton(AF_INET, address.c_str(), network.base_ + 12) == 1;
  if (v4) std::memcpy(network.base_, kMappedPrefix, sizeof(kMappedPrefix));
  const int width = v4 ? 32 : 128;
  int bits = width;
  const bool good =
      (v4 || inet_pton(AF_INET6, address.c_str(), network.base_) == 1) &&
      (slash == absl::string_view::npos || absl::SimpleAtoi(text.substr(slash + 1), &bits)) &&
      bits >= 0 && bits <= width;
  if (!good) {
    return MakeError(absl::StatusCode::kInvalidArgument, "OPTION_INVALID",
                     absl::StrCat("\"", text.substr(0, 64), "\" is not a network like 10.0.0.0/8"));
  }
  network.bits_ = bits + (v4 ? kMappedBits : 0);
  return network;
}

bool IpNetwork::Contains(const uint8_t address[16]) const {
  return PrefixEqual(address, base_, bits_);
}

std::string IpNetwork::ToString() const {
  const bool v4 = bits_ >= kMappedBits && PrefixEqual(base_, kMappedPrefix, kMappedBits);
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? base_ + 12 : base_, text, sizeof(text));
  return absl::StrCat(text, "/", v4 ? bits_ - kMappedBits : bits_);
}

absl::Status UrlGuard::Refusal() {
  return MakeError(absl::StatusCode::kPermissionDenied, "URL_NOT_ALLOWED",
                   "this url may not be fetched");
}

bool UrlGuard::AllowsHost(absl::string_view host) const {
  return std::any_of(rules_.hosts.begin(), rules_.hosts.end(), [&](const std::string& rule) {
    if (absl::StartsWith(rule, "*.")) {
      return host.size() > rule.size() - 1 &&
             absl::EndsWithIgnoreCase(host, absl::string_view(rule).substr(1));
    }
    return absl::EqualsIgnoreCase(host, rule);
  });
}

absl::StatusOr<CheckedUrl> UrlGuard::CheckUrl(absl::string_view url, UrlRefusal* why) const {
  const auto refused = [why](UrlRefusal cause) {
    if (why != nullptr) *why = cause;
    return Refusal();
  };
  if (!enabled()) return refused(UrlRefusal::kHost);
  if (url.empty() || url.size() > kMaxUrlBytes || !PlainText(url)) {
    return refused(UrlRefusal::kForm);
  }
  const CheckedUrl checked(curl_url());
  CURLU* const handle = checked.handle();
  const std::string text(url);
  if (handle == nullptr ||
      curl_url_set(handle, CURLUPART_URL, text.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK) {
    return refused(UrlRefusal::kForm);
  }
  const std::string scheme = PartOf(handle, CURLUPART_SCHEME);
  if (scheme != "https" && (scheme != "http" || !rules_.allow_http)) {
    return refused(UrlRefusal::kScheme);
  }
  const std::string host = PartOf(handle, CURLUPART_HOST);
  // As written, not as decoded: nothing in front of the path but host and port.
  const size_t authority = text.find("://") + 3;
  const bool odd = text.substr(authority, text.find_first_of("/?#", authority) - authority)
                       .find_first_of("@%") != std::string::npos;
  int port = 0;
  if (!absl::SimpleAtoi(PartOf(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT), &port)) {
    return refused(UrlRefusal::kForm);
  }
  const bool port_allowed =
      std::find(rules_.ports.begin(), rules_.ports.end(), port) != rules_.ports.end();
  if (odd) return refused(UrlRefusal::kForm);
  if (!IsHostName(host) || !AllowsHost(host)) return refused(UrlRefusal::kHost);
  if (!port_allowed) return refused(UrlRefusal::kPort);
  return checked;
}

bool UrlGuard::CheckAddress(const sockaddr& address) const {
  uint8_t bytes[16];
  if (!BytesOf(address, bytes)) return false;
  return GlobalUnicast(bytes) ||
         std::any_of(rules_.networks.begin(), rules_.networks.end(),
                     [&](const IpNetwork& network) { return network.Contains(bytes); });
}

}  // namespace videonsa
