#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "runtime/base/hash.h"
#include "server/access/tenant_limits.h"
#include "server/method.h"

namespace videonsa {

/// The access file: who may call, as which tenant, with which limits. Constant once read.
///
/// ```yaml
/// tokens:        # only digests: sha256 of the token's bytes, in hexadecimal
///   - {sha256: 9f86…, tenant: acme, scopes: [ask, clips], expires: 2027-01-31T00:00:00Z}
/// certificates:  # names in client certificates (DNS, URI, mail or common name)
///   - {name: camera.acme.example, tenant: acme, scopes: [clips]}
/// tenants:       # limits that differ from the server's options
///   acme: {requests-per-minute: 600, questions: 8, clip-bytes: 50G}
/// ```
struct AccessRules {
  struct Grant {
    std::string tenant;
    Scopes scopes = 0;
    absl::Time expires = absl::InfiniteFuture();
  };
  struct Token {
    Sha256Digest digest;
    Grant grant;
  };

  std::vector<Token> tokens;
  absl::flat_hash_map<std::string, Grant> certificates;  ///< by name
  absl::flat_hash_map<std::string, TenantOverrides> tenants;
  std::vector<std::string> tenant_names;  ///< of tokens and certificates, sorted, each once

  /// Reads the file's text.
  /// Errors: INVALID_ARGUMENT (ACCESS_FILE_INVALID) with the line; never a digest in the message.
  static absl::StatusOr<AccessRules> Parse(const std::string& text);

  /// The grant of the token with `digest`, or null. Takes the same time wherever it stands.
  const Grant* FindToken(const Sha256Digest& digest) const;
};

}  // namespace videonsa
