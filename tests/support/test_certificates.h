#pragma once

#include <memory>
#include <string>
#include <vector>

namespace videonsa::testing {

/// A certificate and its key, PEM.
struct TestCertificate {
  std::string cert;
  std::string key;
};

/// An authority for one test; its key is made anew each time.
class TestAuthority {
 public:
  TestAuthority();
  ~TestAuthority();

  /// PEM of the authority's own certificate.
  const std::string& cert() const { return cert_; }

  /// A certificate of `dns_names` (also its common name: the first), valid for
  /// `hours` from now; negative: expired.
  TestCertificate Issue(const std::vector<std::string>& dns_names, int hours = 24);

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::string cert_;
};

}  // namespace videonsa::testing
