#include "server/access/tenant_quotas.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr std::array<const char*, 5> kQuotaNames = {"requests_per_minute", "questions", "calls",
                                                    "prompt_tokens_per_minute",
                                                    "output_tokens_per_minute"};
// Nobody knows when an open call ends; so much later is worth a try.
constexpr absl::Duration kTryAgain = absl::Seconds(1);
constexpr char kOther[] = "other";

}  // namespace

TenantQuotas::TenantQuotas(const AccessControl& access, int named_tenants, const Clock& clock,
                           MetricsRegistry& metrics)
    : access_(access),
      named_tenants_(static_cast<size_t>(named_tenants)),
      clock_(clock),
      registry_(metrics) {
  for (size_t i = 0; i < refused_.size(); ++i) {
    refused_[i] = metrics.AddCounter("videonsa_quota_refusals_total",
                                     "Calls refused because a tenant's quota was used up.",
                                     {{"quota", kQuotaNames[i]}});
  }
}

TenantQuotas::TenantMetrics* TenantQuotas::MetricsOf(const std::string& name) {
  if (named_tenants_ == 0) return nullptr;
  if (const auto found = named_.find(name); found != named_.end()) return found->second.get();
  // The set of labels stays closed however often the file changes: what is full stays full.
  const std::vector<std::string> names = access_.TenantNames();
  const size_t rank = std::find(names.begin(), names.end(), name) - names.begin();
  const bool named =
      rank < std::min(names.size(), named_tenants_) && named_.size() <= named_tenants_;
  if (!named && name != kOther) return MetricsOf(kOther);
  const MetricLabels labels = {{"tenant", name}};
  auto made = std::make_unique<TenantMetrics>();
  made->calls = registry_.AddCounter("videonsa_tenant_calls_total",
                                     "Calls by tenant, refused ones too.", labels);
  made->refused = registry_.AddCounter("videonsa_tenant_refusals_total",
                                       "Calls refused because a quota was used up.", labels);
  made->prompt_tokens = registry_.AddCounter("videonsa_tenant_prompt_tokens_total",
                                             "Prompt tokens computed.", labels);
  made->output_tokens =
      registry_.AddCounter("videonsa_tenant_output_tokens_total", "Tokens made.", labels);
  return (named_[name] = std::move(made)).get();
}

TenantQuotas::Tenant& TenantQuotas::Find(const std::string& name, const TenantLimits& limits,
                                         absl::Duration now) {
  std::unique_ptr<Tenant>& tenant = tenants_[name];
  if (tenant == nullptr) {
    tenant = std::make_unique<Tenant>();
    tenant->metrics = MetricsOf(name);
  }
  tenant->requests.SetLimit(limits.requests_per_minute, now);
  tenant->prompt_tokens.SetLimit(limits.prompt_tokens_per_minute, now);
  tenant->output_tokens.SetLimit(limits.output_tokens_per_minute, now);
  return *tenant;
}

absl::Status TenantQuotas::Refuse(Quota quota, int64_t limit, absl::Duration wait) const {
  refused_[quota].Add();
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      ErrorInfo{.reason = "QUOTA_EXCEEDED",
                .metadata = {{"quota", kQuotaNames[quota]}, {"limit", absl::StrCat(limit)}},
                .retry_after = wait},
      absl::StrCat(kQuotaNames[quota], ": the limit is ", limit));
}

absl::Status TenantQuotas::Check(Tenant& tenant, const TenantLimits& limits,
                                 const MethodInfo& method, absl::Duration now) const {
  if (limits.calls > 0 && tenant.calls >= limits.calls) {
    return Refuse(kCalls, limits.calls, kTryAgain);
  }
  if (method.question) {
    if (limits.questions > 0 && tenant.questions >= limits.questions) {
      return Refuse(kQuestions, limits.questions, kTryAgain);
    }
    // One token must be there; the rest is charged afterwards.
    if (const absl::Duration wait = tenant.prompt_tokens.WaitFor(1, now);
        wait > absl::ZeroDuration()) {
      return Refuse(kPromptTokens, limits.prompt_tokens_per_minute, wait);
    }
    if (const absl::Duration wait = tenant.output_tokens.WaitFor(1, now);
        wait > absl::ZeroDuration()) {
      return Refuse(kOutputTokens, limits.output_tokens_per_minute, wait);
    }
  }
  if (const absl::Duration wait = tenant.requests.WaitFor(1, now); wait > absl::ZeroDuration()) {
    return Refuse(kRequests, limits.requests_per_minute, wait);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<void>> TenantQuotas::Enter(const std::string& name,
                                                          const MethodInfo& method) {
  const absl::Duration now = clock_.Monotonic();
  const TenantLimits limits = access_.LimitsOf(name);
  absl::MutexLock lock(&mutex_);
  Tenant& tenant = Find(name, limits, now);
  if (tenant.metrics != nullptr) tenant.metrics->calls.Add();
  if (absl::Status status = Check(tenant, limits, method, now); !status.ok()) {
    if (tenant.metrics != nullptr) tenant.metrics->refused.Add();
    return status;
  }
  tenant.requests.Take(1, now);
  ++tenant.calls;
  tenant.questions += method.question;
  return std::shared_ptr<void>(
      nullptr, [this, name, question = method.question](void*) { Leave(name, question); });
}

void TenantQuotas::Leave(const std::string& name, bool question) {
  absl::MutexLock lock(&mutex_);
  Tenant& tenant = *tenants_[name];
  --tenant.calls;
  tenant.questions -= question;
}

void TenantQuotas::Charge(const std::string& name, int64_t prompt_tokens, int64_t output_tokens) {
  const absl::Duration now = clock_.Monotonic();
  const TenantLimits limits = access_.LimitsOf(name);
  absl::MutexLock lock(&mutex_);
  Tenant& tenant = Find(name, limits, now);
  tenant.prompt_tokens.Take(static_cast<double>(prompt_tokens), now);
  tenant.output_tokens.Take(static_cast<double>(output_tokens), now);
  if (tenant.metrics == nullptr) return;
  tenant.metrics->prompt_tokens.Add(static_cast<double>(prompt_tokens));
  tenant.metrics->output_tokens.Add(static_cast<double>(output_tokens));
}

}  // namespace videonsa
