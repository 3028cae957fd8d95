#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/call_options.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::openai {

/// Where inline bytes stop being inline.
struct InlineLimits {
  int64_t max_inline_bytes = 3 << 20;      ///< of one visual; the server's Limits
  int64_t max_message_bytes = 7 << 19;     ///< of all together: 3.5 MiB, below gRPC's 4 MiB
  absl::Duration ttl = absl::Minutes(10);  ///< how long the server keeps what is uploaded here
};

/// Replaces inline bytes that would not fit into one gRPC message by clips uploaded through `stub`,
/// largest first. Equal bytes are not sent twice: the server knows them by their digest.
///
/// Errors: the server's (quota, missing right, too large), MEDIA_* if the clip cannot be used,
///         CANCELLED through `options`.
/// Threads: blocks until the clips are READY.
absl::Status UploadLargeMedia(v1::ClipService::StubInterface& stub, const InlineLimits& limits,
                              const client::CallOptions& options, v1::Question& question);

}  // namespace videonsa::openai
