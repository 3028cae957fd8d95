#include "server/access/access_control.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"
#include "server/yaml_reader.h"

namespace videonsa {
namespace {

constexpr char kDefaultTenant[] = "default";
constexpr absl::string_view kBearer = "bearer ";
// Shorter ones can be guessed, whatever their digest.
constexpr size_t kMinTokenBytes = 16;
constexpr size_t kMaxTokenBytes = 512;

// The token in a value of `authorization`, or nothing.
absl::string_view TokenOf(absl::string_view value) {
  if (!absl::StartsWithIgnoreCase(value, kBearer)) return {};
  value.remove_prefix(kBearer.size());
  const bool plain =
      value.size() >= kMinTokenBytes && value.size() <= kMaxTokenBytes &&
      std::all_of(value.begin(), value.end(), [](char c) { return c > ' ' && c <= '~'; });
  return plain ? value : absl::string_view();
}

Counter ReloadCounter(MetricsRegistry& metrics, const char* outcome) {
  return metrics.AddCounter("videonsa_config_reloads_total", "Files read again after a change.",
                            {{"file", "access"}, {"outcome", outcome}});
}

}  // namespace

AccessControl::AccessControl(const std::string& path, const TenantLimits& defaults,
                             const Clock& clock, MetricsRegistry& metrics)
    : path_(path),
      clock_(clock),
      reloaded_(ReloadCounter(metrics, "ok")),
      refused_(ReloadCounter(metrics, "refused")),
      defaults_(defaults),
      rules_(std::make_shared<AccessRules>()) {
  constexpr std::array<const char*, kNumRefusals> kNames = {"missing", "malformed", "unknown",
                                                            "expired", "scope"};
  for (size_t i = 0; i < refusals_.size(); ++i) {
    refusals_[i] =
        metrics.AddCounter("videonsa_auth_failures_total", "Calls refused for want of a right.",
                           {{"reason", kNames[i]}});
  }
}

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Create(const std::string& path,
                                                                     const TenantLimits& defaults,
                                                                     const Clock& clock,
                                                                     MetricsRegistry& metrics) {
  std::unique_ptr<AccessControl> control(new AccessControl(path, defaults, clock, metrics));
  if (path.empty()) return control;
  VNSA_ASSIGN_OR_RETURN(std::string text, ReadSmallFile(path));
  VNSA_ASSIGN_OR_RETURN(AccessRules rules, AccessRules::Parse(text));
  absl::MutexLock lock(&control->mutex_);
  control->rules_ = std::make_shared<AccessRules>(std::move(rules));
  control->text_ = std::move(text);
  return control;
}

absl::Status AccessControl::Reload() {
  if (path_.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> text = ReadSmallFile(path_);
  absl::Status status = text.status();
  absl::StatusOr<AccessRules> rules = AccessRules();
  if (text.ok()) {
    {
      absl::MutexLock lock(&mutex_);
      if (*text == text_) {
        last_ = absl::OkStatus();
        return absl::OkStatus();
      }
    }
    rules = AccessRules::Parse(*text);
    status = rules.status();
  }
  absl::MutexLock lock(&mutex_);
  const bool news = status != last_;
  last_ = status;
  if (!status.ok()) {
    if (news) {
      refused_.Add();
      Log(LogLevel::kError, "access file refused, the old rules stay", {{"why", status.message()}});
    }
    return status;
  }
  Log(LogLevel::kInfo, "access file reloaded",
      {{"tokens", static_cast<int64_t>(rules->tokens.size())},
       {"certificates", static_cast<int64_t>(rules->certificates.size())}});
  rules_ = std::make_shared<AccessRules>(*std::move(rules));
  text_ = *std::move(text);
  reloaded_.Add();
  return absl::OkStatus();
}

absl::Status AccessControl::Unauthenticated(Refusal refusal) const {
  refusals_[refusal].Add();
  const absl::StatusCode code = absl::StatusCode::kUnauthenticated;
  switch (refusal) {
    case kMissing:
      return MakeError(code, "TOKEN_MISSING",
                       "this server asks for a token: send authorization: Bearer TOKEN");
    case kExpired:
      return MakeError(code, "TOKEN_EXPIRED", "the token has expired");
    default:
      return MakeError(code, "TOKEN_INVALID", "the token is none of this server's");
  }
}

absl::StatusOr<AccessRules::Grant> AccessControl::FindGrant(const CallerProof& proof) const {
  const std::shared_ptr<const AccessRules> current = rules();
  if (!proof.authorization.empty()) {
    const absl::string_view token =
        proof.authorization.size() == 1 ? TokenOf(proof.authorization[0]) : absl::string_view();
    if (token.empty()) return Unauthenticated(kMalformed);
    const AccessRules::Grant* const grant = current->FindToken(Sha256Of(token));
    if (grant == nullptr) return Unauthenticated(kUnknown);
    return *grant;
  }
  for (const std::string& name : proof.certificate_names) {
    const auto found = current->certificates.find(name);
    if (found != current->certificates.end()) return found->second;
  }
  return Unauthenticated(proof.certificate_names.empty() ? kMissing : kUnknown);
}

absl::StatusOr<Identity> AccessControl::Authorise(const CallerProof& proof,
                                                  const MethodInfo& method) const {
  if (open()) return Identity{kDefaultTenant, kAllScopes};
  VNSA_ASSIGN_OR_RETURN(AccessRules::Grant grant, FindGrant(proof));
  if (grant.expires <= clock_.Now()) return Unauthenticated(kExpired);
  VNSA_RETURN_IF_ERROR(Require(grant.scopes, method.any_of, method.any_text));
  return Identity{std::move(grant.tenant), grant.scopes};
}

absl::Status AccessControl::Require(Scopes held, Scopes needed, absl::string_view name) const {
  if ((held & needed) != 0) return absl::OkStatus();
  refusals_[kScope].Add();
  return MakeError(absl::StatusCode::kPermissionDenied,
                   ErrorInfo{.reason = "SCOPE_MISSING", .metadata = {{"scope", std::string(name)}}},
                   absl::StrCat("the caller lacks the scope ", name));
}

TenantLimits AccessControl::LimitsOf(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  const auto found = rules_->tenants.find(tenant);
  return found == rules_->tenants.end() ? defaults_ : found->second.Over(defaults_);
}

void AccessControl::SetDefaults(const TenantLimits& defaults) {
  absl::MutexLock lock(&mutex_);
  defaults_ = defaults;
}

std::vector<std::string> AccessControl::TenantNames() const { return rules()->tenant_names; }

}  // namespace videonsa
