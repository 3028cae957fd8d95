#include "client/openai/front_metrics.h"

#include "absl/strings/str_cat.h"

namespace videonsa::openai {
namespace {

void Head(std::string& out, const char* name, const char* type, const char* help) {
  absl::StrAppend(&out, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

void Single(std::string& out, const char* name, const char* type, const char* help, int64_t value) {
  Head(out, name, type, help);
  absl::StrAppend(&out, name, " ", value, "\n");
}

}  // namespace

void FrontMetrics::CountAnswer(int http_status) {
  if (http_status >= 0 && http_status < kStatuses) ++answers_[static_cast<size_t>(http_status)];
}

std::string FrontMetrics::Text(int open_connections, int64_t refused_connections) const {
  std::string out;
  Head(out, "videonsa_openai_requests_total", "counter", "HTTP requests answered, by status.");
  for (int status = 100; status < kStatuses; ++status) {
    const int64_t count = answers_[static_cast<size_t>(status)];
    // 200 is there from the start, so that a rate over it is never empty.
    if (count == 0 && status != 200) continue;
    absl::StrAppend(&out, "videonsa_openai_requests_total{code=\"", status, "\"} ", count, "\n");
  }
  Single(out, "videonsa_openai_questions_active", "gauge", "Chat requests being answered.",
         open_questions);
  Single(out, "videonsa_openai_connections_active", "gauge", "HTTP connections open.",
         open_connections);
  Single(out, "videonsa_openai_connections_refused_total", "counter",
         "HTTP connections turned away because there were too many.", refused_connections);
  Single(out, "videonsa_openai_disconnects_total", "counter",
         "Answers cancelled because the caller went away.", disconnects_);
  Single(out, "videonsa_openai_body_bytes", "gauge", "Bytes of request bodies held in memory.",
         body_bytes);
  return out;
}

}  // namespace videonsa::openai
