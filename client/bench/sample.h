#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/bench/plan.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// How the answer of a request was judged.
enum class Verdict { kUnchecked, kRight, kWrong };

/// What became of one request. Times are seconds on one monotonic clock after the beginning of the
/// run; negative: did not happen.
struct Sample {
  PlannedRequest plan;
  double scheduled_s = 0;  ///< closed loop: the moment it was sent
  double sent_s = -1;
  double first_text_s = -1;
  double last_text_s = -1;
  double end_s = -1;             ///< negative: never ended (lost)
  bool dropped = false;          ///< never sent: too many in flight
  bool cancelled_by_us = false;  ///< ended by our own cancel
  bool finished = false;         ///< a final event came, or the unary call was answered
  std::string code;              ///< "OK", "UNAVAILABLE", ...
  std::string reason;            ///< ErrorInfo.reason
  std::vector<float> gaps_s;     ///< between tokens, as deltas arrived
  int64_t tokens = 0;            ///< counted from the deltas
  int64_t uploaded_bytes = 0;
  double estimate_first_s = -1;  ///< kEstimate: predicted time to the first token
  double estimate_total_s = -1;  ///< kEstimate: predicted time to the last token
  bool own_prompt = false;       ///< no other request has the same prompt
  std::string answer;
  proto::AskResult result;  ///< without its text and lists
  Verdict verdict = Verdict::kUnchecked;
  std::string wrong_because;

  bool sent() const { return sent_s >= 0; }
  bool ok() const { return finished && code == "OK"; }
  /// Sent, but no end that the protocol knows: nothing came, or OK without a final event.
  bool lost() const { return sent() && (end_s < 0 || (code == "OK" && !finished)); }
};

}  // namespace videonsa::client
