#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// Checks field `request_id`, by which a repeated request is known. Errors: INVALID_ARGUMENT.
absl::Status CheckRequestId(absl::string_view request_id);

}  // namespace videonsa
