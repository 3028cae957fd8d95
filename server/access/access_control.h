#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/clock.h"
#include "runtime/telemetry/metrics.h"
#include "server/access/access_rules.h"

namespace videonsa {

/// What a caller shows about itself.
struct CallerProof {
  std::vector<absl::string_view> authorization;  ///< values of that metadata key
  std::vector<std::string> certificate_names;    ///< of a verified client certificate
};

/// Who a caller is.
struct Identity {
  std::string tenant;  ///< never empty
  Scopes scopes = 0;
};

/// Says who a caller is and whether it may. Without an access file everybody is the tenant
/// "default" and may do everything.
///
/// A token counts before a certificate. The file is read again when it changes; a broken one is
/// refused, and the rules before it stay.
///
/// Threads: all methods may be called from any thread; those that read the file wait for the disk.
class AccessControl {
 public:
  /// Reads the file at `path`; empty: no file.
  /// Errors: INVALID_ARGUMENT (ACCESS_FILE_INVALID), NOT_FOUND (FILE_UNREADABLE).
  static absl::StatusOr<std::unique_ptr<AccessControl>> Create(const std::string& path,
                                                               const TenantLimits& defaults,
                                                               const Clock& clock,
                                                               MetricsRegistry& metrics);

  /// Whether no file is set: everybody may do everything.
  bool open() const { return path_.empty(); }

  /// Errors: UNAUTHENTICATED (TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED), PERMISSION_DENIED
  ///         (SCOPE_MISSING) with the scopes that would do.
  absl::StatusOr<Identity> Authorise(const CallerProof& proof, const MethodInfo& method) const;

  /// Errors: PERMISSION_DENIED (SCOPE_MISSING) if `held` lacks `needed`, named `name`.
  absl::Status Require(Scopes held, Scopes needed, absl::string_view name) const;

  /// The limits of `tenant`: the defaults with what the file says.
  TenantLimits LimitsOf(const std::string& tenant) const;
  void SetDefaults(const TenantLimits& defaults);
  /// Tenants of the file, sorted.
  std::vector<std::string> TenantNames() const;

  /// Reads the file and takes it if it differs. Logs what it did, the same refusal once.
  /// Errors: as Create; the old rules stay.
  absl::Status Reload();

 private:
  enum Refusal { kMissing, kMalformed, kUnknown, kExpired, kScope, kNumRefusals };

  AccessControl(const std::string& path, const TenantLimits& defaults, const Clock& clock,
                MetricsRegistry& metrics);
  absl::StatusOr<AccessRules::Grant> FindGrant(const CallerProof& proof) const;
  std::shared_ptr<const AccessRules> rules() const {
    absl::MutexLock lock(&mutex_);
    return rules_;
  }
  absl::Status Unauthenticated(Refusal refusal) const;

  const std::string path_;
  const Clock& clock_;
  std::array<Counter, kNumRefusals> refusals_;
  const Counter reloaded_, refused_;
  mutable absl::Mutex mutex_;
  TenantLimits defaults_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const AccessRules> rules_ ABSL_GUARDED_BY(mutex_);
  std::string text_ ABSL_GUARDED_BY(mutex_);   // that rules_ was read from
  absl::Status last_ ABSL_GUARDED_BY(mutex_);  // of the last Reload
};

}  // namespace videonsa
