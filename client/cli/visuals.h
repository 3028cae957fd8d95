#pragma once

#include <string>
#include <vector>

#include "client/cli/command.h"
#include "client/cli/question_flags.h"
#include "client/uploader.h"

namespace videonsa::client {

/// How visuals reach the server.
struct VisualDelivery {
  proto::VideoSampling sampling;
  bool always_upload = false;  ///< never inside the question, even if small
  bool quiet = false;          ///< no note about each stored clip
};

/// Makes the parts of a question: small files go inside it, larger ones are uploaded (with
/// progress) and awaited until READY; the server's limits decide.
///
/// Errors: the server's, those of Uploader; FAILED_PRECONDITION with the clip's own reason if it
///         turned out unusable.
absl::StatusOr<std::vector<proto::Part>> DeliverVisuals(const CommandContext& context,
                                                        OpenedClient& opened,
                                                        const std::vector<VisualSource>& visuals,
                                                        const VisualDelivery& delivery);

/// Uploads one file with a progress bar on the status line.
absl::StatusOr<UploadResult> UploadWithProgress(const CommandContext& context, OpenedClient& opened,
                                                const std::string& path, UploadOptions options);

/// Waits until a clip is READY, with the state on the status line.
/// Errors: the server's; FAILED_PRECONDITION with the clip's reason when it is FAILED.
absl::StatusOr<proto::Clip> AwaitReady(const CommandContext& context, OpenedClient& opened,
                                       const proto::Clip& clip);

/// "ready", "probing"; "state 9" for states of newer servers.
std::string StateText(proto::Clip::State state);

}  // namespace videonsa::client
