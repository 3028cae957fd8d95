#pragma once

#include <curl/curl.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// A range of addresses, "10.0.0.0/8" or "fd00::/8".
class IpNetwork {
 public:
  /// Errors: INVALID_ARGUMENT naming the text.
  static absl::StatusOr<IpNetwork> Parse(absl::string_view text);
  /// Addresses as 16 bytes, IPv4 mapped (::ffff:a.b.c.d).
  bool Contains(const uint8_t address[16]) const;
  std::string ToString() const;

 private:
  uint8_t base_[16] = {};
  int bits_ = 0;  // of the 16 bytes
};

/// Which URLs may be fetched. Nothing is allowed until a host is.
struct UrlRules {
  std::vector<std::string> hosts;   ///< "media.example.org", or "*.example.org" for names below it
  std::vector<int> ports = {443};   ///< of the URL, written or implied
  bool allow_http = false;          ///< else https only
  std::vector<IpNetwork> networks;  ///< addresses allowed beside global unicast ones
  int max_redirects = 0;            ///< each hop is checked as the first one
};

/// Why a URL was refused. For metrics and the operator's log; callers get one text for all.
enum class UrlRefusal {
  kForm,      ///< not a plain URL, or with credentials
  kScheme,    ///< not https
  kHost,      ///< not on the list, or an address in some spelling
  kPort,      ///< not on the list
  kAddress,   ///< the name led to an address that is not public
  kRedirect,  ///< one too many, or one to a URL that would have been refused itself
};
inline constexpr int kNumUrlRefusals = 6;

/// A URL that passed, as libcurl itself read it: what was checked is what is fetched.
class CheckedUrl {
 public:
  explicit CheckedUrl(CURLU* handle) : handle_(handle, curl_url_cleanup) {}
  CURLU* handle() const { return handle_.get(); }

 private:
  std::shared_ptr<CURLU> handle_;
};

/// Decides what the server may fetch on behalf of others (server-side request forgery).
///
/// Two checks, both needed: CheckUrl before anything is sent, and CheckAddress on the very address
/// that a socket is about to connect to, after the name was resolved, at every hop; so a name that
/// resolves differently the second time gains nothing. Every refusal is the same Status.
///
/// Threads: any; constant after creation.
class UrlGuard {
 public:
  explicit UrlGuard(UrlRules rules) : rules_(std::move(rules)) {}

  /// Whether any host is allowed.
  bool enabled() const { return !rules_.hosts.empty(); }
  int max_redirects() const { return rules_.max_redirects; }
  bool allow_http() const { return rules_.allow_http; }

  /// Errors: PERMISSION_DENIED (URL_NOT_ALLOWED), one text for every cause; `why`, if given, gets
  ///         the cause.
  absl::StatusOr<CheckedUrl> CheckUrl(absl::string_view url, UrlRefusal* why = nullptr) const;

  /// Global unicast, or in UrlRules::networks.
  bool CheckAddress(const sockaddr& address) const;

  /// The one refusal.
  static absl::Status Refusal();

 private:
  bool AllowsHost(absl::string_view host) const;

  const UrlRules rules_;
};

}  // namespace videonsa
