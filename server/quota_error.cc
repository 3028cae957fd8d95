#include "server/quota_error.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr absl::Duration kTryAgain = absl::Seconds(10);

}  // namespace

absl::Status OverQuota(absl::string_view quota, int64_t wanted, int64_t limit) {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   ErrorInfo{.reason = "QUOTA_EXCEEDED",
                             .metadata = {{"quota", std::string(quota)},
                                          {"wanted", absl::StrCat(wanted)},
                                          {"limit", absl::StrCat(limit)}},
                             .retry_after = kTryAgain},
                   absl::StrCat(quota, ": would be ", wanted, ", limit ", limit));
}

}  // namespace videonsa
