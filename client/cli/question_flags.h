#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/args.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// Where the pixels of a clip or picture come from, as named on the command line.
struct VisualSource {
  enum class Kind { kFile, kStored, kUrl };
  Kind kind = Kind::kFile;
  std::string name;    ///< path, "clips/ID" or URL
  bool image = false;  ///< a picture: named by --image, or a file that starts like one
};

/// Flags that shape a question: frames, conversation, attention, sampling of the answer.
std::vector<FlagGroup> QuestionFlags();

/// The visuals in the order of the command line: plain words and --image values.
/// Errors: INVALID_ARGUMENT (usage): a file that cannot be opened.
absl::StatusOr<std::vector<VisualSource>> VisualsOf(const ParsedArgs& args);

/// Fills everything but the visuals: system text, earlier turns, the question itself, generation,
/// attention, priority. Errors: INVALID_ARGUMENT (usage), naming the flag.
absl::StatusOr<proto::Question> QuestionOf(const ParsedArgs& args);

/// Sampling flags as they apply to every clip. Errors: INVALID_ARGUMENT (usage).
absl::StatusOr<proto::VideoSampling> SamplingOf(const ParsedArgs& args);

/// Puts visuals in front of the first user turn's text.
///
/// Requires: question has a user turn.
void PutVisuals(const std::vector<proto::Part>& visuals, proto::Question& question);

/// Generation, attention and priority flags alone, for commands that make their own questions.
absl::Status ApplySettings(const ParsedArgs& args, proto::Question& question);

/// True if the bytes start like PNG, JPEG or WebP.
bool LooksLikePicture(absl::string_view head);

}  // namespace videonsa::client
