#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// Wire form of `status`: code, message (at most 1 KiB) and, below 4 KiB in all, google.rpc
/// details: ErrorInfo (domain "videonsa.v1") and RequestInfo always; BadRequest, ResourceInfo,
/// QuotaFailure and RetryInfo where the error has them.
///
/// A status without ErrorInfo gets its code's name as reason; the text of a plain INTERNAL, UNKNOWN
/// or DATA_LOSS, which may come from a library, is replaced by "internal error".
grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id);

/// UNIMPLEMENTED with NOT_IMPLEMENTED: the capability is not there yet.
absl::Status NotImplemented(absl::string_view method);

}  // namespace videonsa
