#include "server/clip_store/clip_errors.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr size_t kMaxNameBytes = 64;

}  // namespace

absl::Status ClipNotFound(absl::string_view name) {
  return MakeError(
      absl::StatusCode::kNotFound,
      ErrorInfo{.reason = "CLIP_NOT_FOUND",
                .metadata = {{"resource_type", "clip"},
                             {"resource_name", std::string(name.substr(0, kMaxNameBytes))}}},
      "no such clip");
}

absl::Status UploadNotFound() {
  return MakeError(
      absl::StatusCode::kNotFound,
      ErrorInfo{.reason = "UPLOAD_NOT_FOUND", .metadata = {{"resource_type", "upload"}}},
      "no such upload");
}

absl::Status ClipFailed(const v1::Clip& clip) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   ErrorInfo{.reason = "CLIP_FAILED", .metadata = {{"cause", clip.error_reason()}}},
                   absl::StrCat("the clip cannot be used: ", clip.error_message()));
}

absl::Status ClipNotReady(const v1::Clip& clip) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   ErrorInfo{.reason = "CLIP_NOT_READY",
                             .metadata = {{"state", v1::Clip::State_Name(clip.state())}},
                             .retry_after = absl::Seconds(1)},
                   "the clip is not ready yet");
}

bool IsArriving(const v1::Clip& clip) {
  return clip.state() == v1::Clip::STATE_UPLOADING || clip.state() == v1::Clip::STATE_FETCHING;
}

}  // namespace videonsa
