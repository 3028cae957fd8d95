#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "runtime/api/generate_result.h"
#include "server/server_core.h"
#include "server/trace/question_trace.h"

namespace videonsa {

/// Charges a tenant for the tokens of its question as they come, writes its phases to the trace
/// file at the end, and passes everything on. Tokens of an answer that nobody takes any more were
/// made all the same, so a caller that leaves early pays for what it had.
///
/// Threads, lifetime: as ResponseSink; `core` outlives it.
class MeteredSink : public ResponseSink {
 public:
  MeteredSink(ServerCore& core, std::string tenant, QuestionTrace trace,
              std::shared_ptr<ResponseSink> sink)
      : core_(core), tenant_(std::move(tenant)), trace_(std::move(trace)), sink_(std::move(sink)) {}

  void OnAccepted(RequestId id, int ahead) override { sink_->OnAccepted(id, ahead); }
  void OnProgress(const char* stage, int64_t done, int64_t total) override {
    sink_->OnProgress(stage, done, total);
  }
  void OnPrefill(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override {
    core_.quotas.Charge(tenant_, std::max<int64_t>(0, prompt.text + prompt.vision - cached_tokens),
                        0);
    sink_->OnPrefill(prompt, cached_tokens, took);
  }
  bool OnChunk(TokenChunk chunk) override {
    core_.quotas.Charge(tenant_, 0, chunk.token_count);
    return sink_->OnChunk(std::move(chunk));
  }
  void OnFinish(const absl::Status& status, GenerateResult result) override {
    if (core_.trace != nullptr && trace_.ids.sampled) {
      core_.trace->Add(SpansOf(trace_, status, result, core_.clock.Now()));
    }
    sink_->OnFinish(status, std::move(result));
  }

 private:
  ServerCore& core_;
  const std::string tenant_;
  const QuestionTrace trace_;
  const std::shared_ptr<ResponseSink> sink_;
};

}  // namespace videonsa
