#include "server/trace/question_trace.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/error.h"
#include "server/random_id.h"

namespace videonsa {
namespace {

// Adds the phase below `root`, unless it took no time.
void AddPhase(const char* name, absl::Time start, absl::Duration duration,
              std::vector<TraceSpan>& spans) {
  if (duration <= absl::ZeroDuration()) return;
  TraceSpan span;
  span.name = name;
  span.trace_id = spans.front().trace_id;
  span.span_id = absl::StrFormat("%016x", RandomBits());
  span.parent_id = spans.front().span_id;
  span.start = start;
  span.duration = duration;
  spans.push_back(std::move(span));
}

void AddPhases(const Timing& timing, std::vector<TraceSpan>& spans) {
  absl::Time at = spans.front().start;
  const std::pair<const char*, absl::Duration> before[] = {{"fetch", timing.fetch},
                                                           {"queue", timing.queue},
                                                           {"decode", timing.decode},
                                                           {"preprocess", timing.preprocess},
                                                           {"tokenize", timing.tokenize}};
  for (const auto& [name, duration] : before) {
    AddPhase(name, at, duration, spans);
    at += duration;
  }
  const absl::Time first_token = spans.front().start + timing.time_to_first_token;
  AddPhase("vision", first_token - timing.prefill - timing.vision, timing.vision, spans);
  AddPhase("prefill", first_token - timing.prefill, timing.prefill, spans);
  AddPhase("generate", first_token, timing.generate, spans);
}

}  // namespace

std::vector<TraceSpan> SpansOf(const QuestionTrace& trace, const absl::Status& status,
                               const GenerateResult& result, absl::Time now) {
  TraceSpan root;
  root.name = MethodName(trace.method);
  root.trace_id = trace.ids.trace_id;
  root.span_id = trace.ids.span_id;
  root.parent_id = trace.ids.parent_id;
  root.start = trace.received;
  root.duration = now - trace.received;
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  root.attributes = {{"request_id", trace.request_id},
                     {"code", absl::StatusCodeToString(status.code())},
                     {"reason", info ? info->reason : ""}};
  if (status.ok()) {
    const Usage& usage = result.usage;
    root.attributes.emplace_back("prompt_tokens",
                                 absl::StrCat(usage.prompt.text + usage.prompt.vision));
    root.attributes.emplace_back("cached_tokens", absl::StrCat(usage.cached_prompt_tokens));
    root.attributes.emplace_back("output_tokens", absl::StrCat(usage.output_tokens));
  }
  std::vector<TraceSpan> spans;
  spans.push_back(std::move(root));
  if (status.ok()) AddPhases(result.timing, spans);
  return spans;
}

}  // namespace videonsa
