#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "videonsa/v1/clip.pb.h"

namespace videonsa {

/// NOT_FOUND for a clip that is not there or is another tenant's.
absl::Status ClipNotFound(absl::string_view name);
/// NOT_FOUND for an upload that is not there or is another tenant's.
absl::Status UploadNotFound();
/// FAILED_PRECONDITION (CLIP_FAILED) with the reason of the failure.
absl::Status ClipFailed(const v1::Clip& clip);
/// FAILED_PRECONDITION (CLIP_NOT_READY), to be tried again.
absl::Status ClipNotReady(const v1::Clip& clip);

/// Whether bytes of the clip are still to come, from a client or from a url.
bool IsArriving(const v1::Clip& clip);

}  // namespace videonsa
