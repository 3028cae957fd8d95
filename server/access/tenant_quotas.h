#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/clock.h"
#include "runtime/telemetry/metrics.h"
#include "server/access/access_control.h"
#include "server/access/token_bucket.h"
#include "server/method.h"

namespace videonsa {

/// Counts what each tenant uses and refuses what is beyond its limits.
///
/// Tokens of a question are known only while it runs: they are charged as they come, and a tenant
/// that has overdrawn a minute's worth waits before its next question.
/// Metrics carry no tenant, but for the first `named_tenants` of the access file.
///
/// Threads: all methods may be called from any thread. Lifetime: outlives the slots it gave.
class TenantQuotas {
 public:
  TenantQuotas(const AccessControl& access, int named_tenants, const Clock& clock,
               MetricsRegistry& metrics);

  /// Takes one call into account; it counts as open until the last copy of the slot dies.
  /// Errors: RESOURCE_EXHAUSTED (QUOTA_EXCEEDED) with the quota, its limit and when to try again.
  absl::StatusOr<std::shared_ptr<void>> Enter(const std::string& tenant, const MethodInfo& method);

  /// Counts prompt tokens that were computed and output tokens.
  void Charge(const std::string& tenant, int64_t prompt_tokens, int64_t output_tokens);

 private:
  enum Quota { kRequests, kQuestions, kCalls, kPromptTokens, kOutputTokens, kNumQuotas };
  struct TenantMetrics {
    Counter calls, refused, prompt_tokens, output_tokens;
  };
  struct Tenant {
    TokenBucket requests, prompt_tokens, output_tokens;
    int64_t questions = 0;  // open
    int64_t calls = 0;      // open
    TenantMetrics* metrics = nullptr;
  };

  Tenant& Find(const std::string& name, const TenantLimits& limits, absl::Duration now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  TenantMetrics* MetricsOf(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Check(Tenant& tenant, const TenantLimits& limits, const MethodInfo& method,
                     absl::Duration now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Refuse(Quota quota, int64_t limit, absl::Duration wait) const;
  void Leave(const std::string& name, bool question);

  const AccessControl& access_;
  const size_t named_tenants_;
  const Clock& clock_;
  MetricsRegistry& registry_;
  std::array<Counter, kNumQuotas> refused_;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::unique_ptr<Tenant>> tenants_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::unique_ptr<TenantMetrics>> named_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
