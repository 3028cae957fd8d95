#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"

namespace videonsa::client {

/// Benchmarks of video question answering whose scoring needs no judge.
enum class EvalTask { kMvbench, kVideomme, kMlvu, kLongvideobench, kGeneric };

/// Errors: INVALID_ARGUMENT naming the known tasks.
absl::StatusOr<EvalTask> ParseEvalTask(const std::string& name);

/// One question as the published evaluation asks it.
struct EvalItem {
  std::string id;
  std::string clip;    ///< as the record names it; empty: asked without one
  std::string prompt;  ///< text after the clip
  std::string truth;   ///< what ExtractAnswer must give
  int num_options = 0;
  /// (kind, value), e.g. ("duration", "short"): accuracy is broken down by each.
  std::vector<std::pair<std::string, std::string>> groups;
};

/// Builds the question from a record of the data set. A field "clip" overrides the task's own way
/// of naming files.
///
/// Errors: INVALID_ARGUMENT naming the field that is missing or unusable.
absl::StatusOr<EvalItem> MakeEvalItem(EvalTask task, const google::protobuf::Value& record);

/// Longest answer, in tokens, as the task sets it.
int AnswerTokens(EvalTask task);

/// The part of a cleaned reply that is compared; empty if it cannot be parsed.
std::string ExtractAnswer(EvalTask task, const EvalItem& item, const std::string& reply);

/// True if the reply is right by the task's own rule.
bool IsRight(EvalTask task, const EvalItem& item, const std::string& reply);

/// A judged reply.
struct EvalOutcome {
  std::string reply;  ///< cleaned
  std::string extracted;
  bool right = false;
  bool failed = false;  ///< no answer from the server; counts as wrong and is told apart
};

/// Scores of a run.
struct EvalScore {
  std::string metric;  ///< name as published
  double value = 0;    ///< in the metric's own unit: percent, or a fraction for longvideobench
  int64_t asked = 0, right = 0, empty = 0, unparsed = 0, failed = 0;
  /// kind -> value -> (right, counted).
  std::map<std::string, std::map<std::string, std::pair<int64_t, int64_t>>> groups;
};

/// Puts outcomes together as the task's metric does: mvbench leaves empty replies out of the
/// denominator, mlvu takes the mean over task types, the others divide by all.
///
/// Requires: items and outcomes of the same length.
EvalScore ScoreTask(EvalTask task, const std::vector<EvalItem>& items,
                    const std::vector<EvalOutcome>& outcomes);

}  // namespace videonsa::client
