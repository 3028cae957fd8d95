#include "server/access/tenant_limits.h"

#include <array>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/byte_size.h"
#include "server/nearest_name.h"

namespace videonsa {
namespace {

struct Row {
  const char* name;
  std::optional<int64_t> TenantOverrides::*set;
  int64_t TenantLimits::*limit;
};

constexpr std::array<Row, 8> kRows = {{
    {"requests-per-minute", &TenantOverrides::requests_per_minute,
     &TenantLimits::requests_per_minute},
    {"questions", &TenantOverrides::questions, &TenantLimits::questions},
    {"calls", &TenantOverrides::calls, &TenantLimits::calls},
    {"prompt-tokens-per-minute", &TenantOverrides::prompt_tokens_per_minute,
     &TenantLimits::prompt_tokens_per_minute},
    {"output-tokens-per-minute", &TenantOverrides::output_tokens_per_minute,
     &TenantLimits::output_tokens_per_minute},
    {"clip-bytes", &TenantOverrides::clip_bytes, &TenantLimits::clip_bytes},
    {"clips", &TenantOverrides::clips, &TenantLimits::clips},
    {"uploads", &TenantOverrides::uploads, &TenantLimits::uploads},
}};

constexpr int64_t kMost = int64_t{1} << 50;

}  // namespace

TenantLimits TenantOverrides::Over(TenantLimits defaults) const {
  for (const Row& row : kRows) {
    if (const std::optional<int64_t>& value = this->*row.set) defaults.*row.limit = *value;
  }
  return defaults;
}

absl::Status TenantOverrides::Set(absl::string_view name, absl::string_view value) {
  std::vector<std::string> names;
  for (const Row& row : kRows) {
    names.push_back(row.name);
    if (name != row.name) continue;
    int64_t number = 0;
    if (!ParseByteSize(value, &number) || number > kMost) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": \"", value.substr(0, 64), "\" is not 0 to ", kMost));
    }
    this->*row.set = number;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name.substr(0, 64), "\" is no limit", DidYouMean(name, names)));
}

}  // namespace videonsa
