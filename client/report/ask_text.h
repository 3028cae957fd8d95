#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/style.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// How the terminal report looks and what it holds.
struct AskTextOptions {
  int columns = 80;
  bool evidence = false;
  bool layers = false;
  bool gates = false;
  /// Names of the visuals in prompt order, for people.
  std::vector<std::string> visual_names;
};

/// What was done for an answer: visuals, tokens, phase times, attention budget by branch and, on
/// request, the timeline, layers and gates. Lines end with a line break.
std::string AskText(const proto::AskResult& result, const Painter& painter,
                    const AskTextOptions& options);

/// One line about what was looked at: sizes, frames, tokens.
std::string VisualText(const proto::VisualReport& visual);

/// The phases of an answer with their times, in order, those that took no time left out.
std::vector<std::pair<std::string, absl::Duration>> PhasesOf(const proto::Timing& timing);

/// Branches by name with their pairs, those without pairs left out.
std::vector<std::pair<std::string, int64_t>> BranchesOf(const proto::BranchPairs& pairs);

/// "end of answer", "token limit reached (--max-tokens)".
std::string FinishText(const proto::AskResult& result);

/// "causal_nsa", from the report's semantics or its mode.
std::string SemanticsText(const proto::AttentionReport& report);

}  // namespace videonsa::client
