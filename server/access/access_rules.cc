#include "server/access/access_rules.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/nearest_name.h"
#include "server/yaml_reader.h"

namespace videonsa {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxCertificateNameBytes = 256;
constexpr size_t kMaxGrants = 10'000;

absl::Status Invalid(int line, absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "ACCESS_FILE_INVALID",
                   absl::StrCat("line ", line, ": ", what));
}

absl::Status CheckTenantName(const YamlValue& value) {
  const bool plain = value.kind == YamlValue::Kind::kText && !value.text.empty() &&
                     value.text.size() <= kMaxNameBytes &&
                     std::all_of(value.text.begin(), value.text.end(), [](char c) {
                       return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' ||
                              c == '_' || c == '.';
                     });
  if (plain) return absl::OkStatus();
  return Invalid(value.line, absl::StrCat("tenant: must be 1 to ", kMaxNameBytes,
                                          " letters, digits, dashes, dots or underscores"));
}

absl::StatusOr<Sha256Digest> ParseDigest(const YamlValue& value) {
  const bool hex =
      value.text.size() == 64 && std::all_of(value.text.begin(), value.text.end(), [](char c) {
        return absl::ascii_isxdigit(static_cast<unsigned char>(c));
      });
  if (!hex) return Invalid(value.line, "sha256: must be 64 hexadecimal digits");
  const std::string bytes = absl::HexStringToBytes(value.text);
  Sha256Digest digest;
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

absl::StatusOr<Scopes> ParseScopes(const YamlValue& value) {
  if (value.kind != YamlValue::Kind::kList || value.items.empty()) {
    return Invalid(value.line, "scopes: must be a list of ask, clips, admin, bench");
  }
  Scopes scopes = 0;
  for (const YamlValue& item : value.items) {
    const Scopes scope = ScopeNamed(item.text);
    if (scope == 0) {
      return Invalid(item.line,
                     absl::StrCat("scopes: \"", item.text.substr(0, kMaxNameBytes),
                                  "\" is none of ask, clips, admin, bench",
                                  DidYouMean(item.text, {"ask", "clips", "admin", "bench"})));
    }
    scopes |= scope;
  }
  return scopes;
}

// Reads tenant, scopes and expires; `id` is the one other field that must be there.
absl::StatusOr<AccessRules::Grant> ParseGrant(const YamlValue& entry, const char* id) {
  if (entry.kind != YamlValue::Kind::kMap) {
    return Invalid(entry.line, absl::StrCat("must be a map of ", id, ", tenant and scopes"));
  }
  AccessRules::Grant grant;
  for (const auto& [name, value] : entry.fields) {
    if (name == "tenant") {
      VNSA_RETURN_IF_ERROR(CheckTenantName(value));
      grant.tenant = value.text;
    } else if (name == "scopes") {
      VNSA_ASSIGN_OR_RETURN(grant.scopes, ParseScopes(value));
    } else if (name == "expires") {
      std::string why;
      if (!absl::ParseTime(absl::RFC3339_full, value.text, &grant.expires, &why)) {
        return Invalid(value.line, "expires: must be a time like 2027-01-31T00:00:00Z");
      }
    } else if (name != id) {
      return Invalid(value.line,
                     absl::StrCat("\"", name.substr(0, kMaxNameBytes), "\" is no field",
                                  DidYouMean(name, {id, "tenant", "scopes", "expires"})));
    }
  }
  if (grant.tenant.empty()) return Invalid(entry.line, "tenant is missing");
  if (grant.scopes == 0) return Invalid(entry.line, "scopes is missing");
  if (entry.Find(id) == nullptr) return Invalid(entry.line, absl::StrCat(id, " is missing"));
  return grant;
}

absl::Status ParseTokens(const YamlValue& list, AccessRules& rules) {
  for (const YamlValue& entry : list.items) {
    VNSA_ASSIGN_OR_RETURN(AccessRules::Grant grant, ParseGrant(entry, "sha256"));
    VNSA_ASSIGN_OR_RETURN(const Sha256Digest digest, ParseDigest(*entry.Find("sha256")));
    for (const AccessRules::Token& other : rules.tokens) {
      if (other.digest == digest) return Invalid(entry.line, "sha256: stands twice");
    }
    rules.tokens.push_back({digest, std::move(grant)});
  }
  return absl::OkStatus();
}

absl::Status ParseCertificates(const YamlValue& list, AccessRules& rules) {
  for (const YamlValue& entry : list.items) {
    VNSA_ASSIGN_OR_RETURN(AccessRules::Grant grant, ParseGrant(entry, "name"));
    const std::string& name = entry.Find("name")->text;
    if (name.empty() || name.size() > kMaxCertificateNameBytes) {
      return Invalid(entry.line,
                     absl::StrCat("name: must be 1 to ", kMaxCertificateNameBytes, " bytes"));
    }
    if (!rules.certificates.emplace(name, std::move(grant)).second) {
      return Invalid(entry.line, "name: stands twice");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseTenants(const YamlValue& map, AccessRules& rules) {
  for (const auto& [name, limits] : map.fields) {
    YamlValue as_value;
    as_value.kind = YamlValue::Kind::kText;
    as_value.line = limits.line;
    as_value.text = name;
    VNSA_RETURN_IF_ERROR(CheckTenantName(as_value));
    if (limits.kind != YamlValue::Kind::kMap && limits.kind != YamlValue::Kind::kEmpty) {
      return Invalid(limits.line, absl::StrCat(name, ": must be a map of limits"));
    }
    TenantOverrides& overrides = rules.tenants[name];
    for (const auto& [limit, value] : limits.fields) {
      if (absl::Status set = overrides.Set(limit, value.text); !set.ok()) {
        return Invalid(value.line, set.message());
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AccessRules> AccessRules::Parse(const std::string& text) {
  absl::StatusOr<YamlValue> root = ParseYaml(text);
  if (!root.ok()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "ACCESS_FILE_INVALID",
                     root.status().message());
  }
  if (root->kind != YamlValue::Kind::kMap) {
    return Invalid(1, "must be a map with tokens, certificates and tenants");
  }
  AccessRules rules;
  for (const auto& [name, value] : root->fields) {
    const bool tenants = name == "tenants";
    const auto expected = tenants ? YamlValue::Kind::kMap : YamlValue::Kind::kList;
    if (!tenants && name != "tokens" && name != "certificates") {
      return Invalid(value.line,
                     absl::StrCat("\"", name.substr(0, kMaxNameBytes), "\" is no section",
                                  DidYouMean(name, {"tokens", "certificates", "tenants"})));
    }
    if (value.kind == YamlValue::Kind::kEmpty) continue;
    if (value.kind != expected) {
      return Invalid(value.line, absl::StrCat(name, ": must be a ", tenants ? "map" : "list"));
    }
    if (value.items.size() > kMaxGrants) {
      return Invalid(value.line,
                     absl::StrCat(name, ": ", value.items.size(), " entries, limit ", kMaxGrants));
    }
    VNSA_RETURN_IF_ERROR(tenants            ? ParseTenants(value, rules)
                         : name == "tokens" ? ParseTokens(value, rules)
                                            : ParseCertificates(value, rules));
  }
  std::vector<std::string>& names = rules.tenant_names;
  for (const Token& token : rules.tokens) names.push_back(token.grant.tenant);
  for (const auto& [name, grant] : rules.certificates) names.push_back(grant.tenant);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return rules;
}

const AccessRules::Grant* AccessRules::FindToken(const Sha256Digest& digest) const {
  const Grant* found = nullptr;
  for (const Token& token : tokens) {
    // Looks at all bytes of all entries: time must not tell how much of a guess was right.
    uint32_t difference = 0;
    for (size_t i = 0; i < digest.size(); ++i) difference |= digest[i] ^ token.digest[i];
    found = difference == 0 ? &token.grant : found;
  }
  return found;
}

}  // namespace videonsa
