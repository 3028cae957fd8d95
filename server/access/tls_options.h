#pragma once

#include <string>

namespace videonsa {

/// Where the server's certificate lies. All empty: no TLS.
struct TlsOptions {
  std::string cert;       ///< PEM, leaf first
  std::string key;        ///< PEM
  std::string client_ca;  ///< PEM of authorities; set: every client must show a certificate

  bool enabled() const { return !cert.empty() || !key.empty() || !client_ca.empty(); }
};

}  // namespace videonsa
