#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "runtime/api/generate_result.h"
#include "server/access/tenant_quotas.h"

namespace videonsa {

/// Charges a tenant for the tokens of its question as they come, and passes everything on. Tokens
/// of an answer that nobody takes any more were made all the same, so a caller that leaves early
/// pays for what it had.
///
/// Threads, lifetime: as ResponseSink; `quotas` outlives it.
class MeteredSink : public ResponseSink {
 public:
  MeteredSink(TenantQuotas& quotas, std::string tenant, std::shared_ptr<ResponseSink> sink)
      : quotas_(quotas), tenant_(std::move(tenant)), sink_(std::move(sink)) {}

  void OnAccepted(RequestId id, int ahead) override { sink_->OnAccepted(id, ahead); }
  void OnProgress(const char* stage, int64_t done, int64_t total) override {
    sink_->OnProgress(stage, done, total);
  }
  void OnPrefill(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override {
    quotas_.Charge(tenant_, std::max<int64_t>(0, prompt.text + prompt.vision - cached_tokens), 0);
    sink_->OnPrefill(prompt, cached_tokens, took);
  }
  bool OnChunk(TokenChunk chunk) override {
    quotas_.Charge(tenant_, 0, chunk.token_count);
    return sink_->OnChunk(std::move(chunk));
  }
  void OnFinish(const absl::Status& status, GenerateResult result) override {
    sink_->OnFinish(status, std::move(result));
  }

 private:
  TenantQuotas& quotas_;
  const std::string tenant_;
  const std::shared_ptr<ResponseSink> sink_;
};

}  // namespace videonsa
