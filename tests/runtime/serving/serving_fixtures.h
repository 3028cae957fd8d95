#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "runtime/api/generate_request.h"
#include "runtime/base/error.h"
#include "tests/support/fake_media.h"

namespace videonsa {

/// A question of one user turn: an optional clip of the fake loader, then text.
inline GenerateRequest Question(const std::string& text, const std::string& clip = "",
                                int num_frames = 4) {
  GenerateRequest request;
  request.tenant = "t";
  request.generation.seed = 1;  // the fake executor's answers depend on it
  Turn turn;
  if (!clip.empty()) {
    VideoPart video;
    video.source = FakeSource(clip);
    video.sampling.num_frames = num_frames;
    turn.parts.emplace_back(std::move(video));
  }
  turn.parts.emplace_back(TextPart{text});
  request.turns.push_back(std::move(turn));
  return request;
}

inline std::string ReasonOf(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : "";
}

}  // namespace videonsa
