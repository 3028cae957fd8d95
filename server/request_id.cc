#include "server/request_id.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr size_t kMaxBytes = 64;

}  // namespace

absl::Status CheckRequestId(absl::string_view request_id) {
  if (request_id.size() <= kMaxBytes) return absl::OkStatus();
  return InvalidField("request_id",
                      absl::StrCat("has ", request_id.size(), " bytes, limit ", kMaxBytes));
}

}  // namespace videonsa
