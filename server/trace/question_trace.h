#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/api/generate_result.h"
#include "server/method.h"
#include "server/trace/trace_context.h"
#include "server/trace/trace_file.h"

namespace videonsa {

/// What a question's spans need to know of its call.
struct QuestionTrace {
  TraceContext ids;
  Method method = Method::kAsk;
  std::string request_id;
  absl::Time received;
};

/// The span of a question that ended at `now`, and below it one for each phase that took time,
/// named as in the reply and in the metrics: fetch, queue, decode, preprocess, tokenize, vision,
/// prefill, generate.
///
/// The runtime reports durations. Starts are laid out from them: what comes before the model in
/// order from the receipt, vision and prefill so that they end with the first token.
std::vector<TraceSpan> SpansOf(const QuestionTrace& trace, const absl::Status& status,
                               const GenerateResult& result, absl::Time now);

}  // namespace videonsa
