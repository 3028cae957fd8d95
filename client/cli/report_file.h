#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cli/console.h"
#include "client/cli/question_flags.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {

/// Writes the page about an answer to `path`, with pictures of the most watched moments of clips
/// that are files on this machine, made by the ffmpeg tool if it is installed; else the page says
/// why there are none.
///
/// Errors: INVALID_ARGUMENT (FILE_UNWRITABLE).
absl::Status WriteAskReport(const std::string& path, const proto::Question& question,
                            const proto::AskResult& result,
                            const std::vector<VisualSource>& visuals, Console& console);

}  // namespace videonsa::client
