#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace videonsa::client {

/// A load made up on the spot.
struct SyntheticSpec {
  int frames = 16;
  int width = 448;
  int height = 448;
  double seconds = 8;
  int question_tokens = 32;
  int output_tokens = 64;
  bool ignore_eos = false;  ///< always answer to the limit; the server may demand a right for it
};

/// "frames=16,size=448x448,seconds=8,question_tokens=32,output_tokens=64,ignore_eos=1"; what is
/// missing keeps its default. Errors: INVALID_ARGUMENT with the key.
absl::StatusOr<SyntheticSpec> ParseSynthetic(const std::string& text);

/// Bytes of an MP4 clip with moving test patterns; `number` makes clips differ in every frame. Made
/// by the ffmpeg tool. Errors: UNAVAILABLE if it is not installed.
absl::StatusOr<std::string> MakeClip(const SyntheticSpec& spec, int number);

/// A question of about so many tokens; the same for the same number.
std::string MakeQuestion(int tokens, int number);

}  // namespace videonsa::client
