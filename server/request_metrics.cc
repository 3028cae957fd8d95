// size: the constructor is one list of metrics
#include "server/request_metrics.h"

#include <algorithm>

#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr std::array<const char*, 8> kRefusals = {
    "queue_full", "kv_exhausted", "tenant_rate", "tenant_concurrency",
    "deadline",   "draining",     "too_large",   "invalid"};

size_t RefusalOf(const absl::Status& status) {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  const std::string reason = info ? info->reason : "";
  if (reason == "QUEUE_FULL") return 0;
  if (reason == "KV_EXHAUSTED") return 1;
  if (reason == "QUOTA_EXCEEDED") {
    const std::string& quota = info->metadata.front().second;  // as TenantQuotas makes it
    return quota == "questions" || quota == "calls" ? 3 : 2;
  }
  if (status.code() == absl::StatusCode::kDeadlineExceeded) return 4;
  if (status.code() == absl::StatusCode::kUnavailable) return 5;
  if (reason == "PROMPT_TOO_LONG" || reason == "TOO_MANY_FRAMES") return 6;
  return 7;
}

const char* ModeName(AttentionSemantics semantics) {
  return semantics == AttentionSemantics::kCausalNsa ||
                 semantics == AttentionSemantics::kReleasedNsa
             ? "native_sparse"
             : SemanticsName(semantics);
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

RequestMetrics::RequestMetrics(MetricsRegistry& registry) {
  constexpr std::array<const char*, 7> kEnds = {"stop",  "length",    "context", "deadline",
                                                "drain", "cancelled", "error"};
  for (size_t i = 0; i < ended_.size(); ++i) {
    ended_[i] = registry.AddCounter("videonsa_requests_total", "Ended questions.",
                                    {{"finish_reason", kEnds[i]}});
  }
  for (size_t i = 0; i < refused_.size(); ++i) {
    refused_[i] = registry.AddCounter("videonsa_admission_rejections_total",
                                      "Questions that never started.", {{"reason", kRefusals[i]}});
  }
  constexpr std::array<const char*, 3> kPriorities = {"batch", "standard", "interactive"};
  constexpr std::array<const char*, 3> kCache = {"miss", "partial", "hit"};
  constexpr std::array<const char*, 3> kBranches = {"compressed", "selected", "window"};
  for (size_t i = 0; i < 3; ++i) {
    queue_[i] = registry.AddHistogram("videonsa_request_queue_duration_seconds",
                                      "Receipt to first schedule.", buckets::FirstToken(),
                                      {{"priority", kPriorities[i]}});
    first_token_[i] =
        registry.AddHistogram("videonsa_time_to_first_token_seconds", "Receipt to first token.",
                              buckets::FirstToken(), {{"cache", kCache[i]}});
    gates_[i] = registry.AddHistogram("videonsa_request_attention_gate_ratio",
                                      "Mean gate per question that asked for gates.",
                                      buckets::Ratio(), {{"branch", kBranches[i]}});
  }
  prefill_ = registry.AddHistogram("videonsa_request_prefill_duration_seconds",
                                   "First schedule to first token.", buckets::FirstToken());
  generate_ = registry.AddHistogram("videonsa_request_generate_duration_seconds",
                                    "First to last token.", buckets::Request());
  total_ = registry.AddHistogram("videonsa_request_duration_seconds", "Receipt to last token.",
                                 buckets::Request());
  gap_ = registry.AddHistogram("videonsa_inter_token_latency_seconds", "Gap between tokens.",
                               buckets::InterToken());
  constexpr std::array<const char*, 5> kStages = {"fetch", "decode", "preprocess", "tokenize",
                                                  "vision"};
  for (size_t i = 0; i < stages_.size(); ++i) {
    stages_[i] = registry.AddHistogram("videonsa_stage_duration_seconds",
                                       "Stages before the language model, per question.",
                                       buckets::Stage(), {{"stage", kStages[i]}});
  }
  const auto prompt = [&registry](const char* kind) {
    return registry.AddCounter("videonsa_prompt_tokens_total", "Prompt tokens taken.",
                               {{"kind", kind}});
  };
  text_tokens_ = prompt("text");
  vision_tokens_ = prompt("vision");
  output_tokens_ = registry.AddCounter("videonsa_output_tokens_total", "Tokens made.");
  const auto request_prompt = [&registry](const char* kind) {
    return registry.AddHistogram("videonsa_request_prompt_tokens", "Prompt tokens per question.",
                                 buckets::Tokens(), {{"kind", kind}});
  };
  request_text_tokens_ = request_prompt("text");
  request_vision_tokens_ = request_prompt("vision");
  request_output_tokens_ = registry.AddHistogram("videonsa_request_output_tokens",
                                                 "Tokens made per question.", buckets::Tokens());
  constexpr std::array<const char*, 4> kPairs = {"compressed", "selected", "window", "dense"};
  for (size_t i = 0; i < pairs_.size(); ++i) {
    pairs_[i] = registry.AddCounter("videonsa_attention_pairs_total",
                                    "Query-key pairs scored, per head, summed over layers.",
                                    {{"branch", kPairs[i]}});
  }
  dense_pairs_ = registry.AddCounter("videonsa_attention_dense_pairs_total",
                                     "Pairs a dense causal model would have scored.");
  budget_ = registry.AddHistogram("videonsa_request_attention_budget_ratio",
                                  "Scored pairs over dense pairs, per question.", buckets::Ratio());
  coverage_ =
      registry.AddHistogram("videonsa_request_selected_coverage_ratio",
                            "Distinct blocks selected over blocks present, mean over layers, per "
                            "question that asked for evidence.",
                            buckets::Ratio());
  clamped_ = registry.AddCounter("videonsa_attention_clamped_total",
                                 "Questions whose max_budget_fraction lowered a setting.");
  for (size_t i = 0; i < modes_.size(); ++i) {
    modes_[i] =
        registry.AddCounter("videonsa_attention_mode_total", "Questions by attention semantics.",
                            {{"mode", ModeName(static_cast<AttentionSemantics>(i))}});
  }
}

void RequestMetrics::Refused(const absl::Status& status) const {
  refused_[RefusalOf(status)].Add();
}

void RequestMetrics::Gap(absl::Duration per_token) const { gap_.Observe(Seconds(per_token)); }

void RequestMetrics::Ended(const absl::Status& status, const GenerateResult& result,
                           Priority priority) const {
  if (!status.ok()) {
    ended_[status.code() == absl::StatusCode::kCancelled ? 5 : 6].Add();
    return;
  }
  ended_[static_cast<size_t>(result.finish_reason)].Add();
  const Timing& timing = result.timing;
  queue_[static_cast<size_t>(priority)].Observe(Seconds(timing.queue));
  prefill_.Observe(Seconds(timing.prefill));
  generate_.Observe(Seconds(timing.generate));
  total_.Observe(Seconds(timing.total));
  const Usage& usage = result.usage;
  const int64_t prompt = usage.prompt.text + usage.prompt.vision;
  const size_t cache = usage.cached_prompt_tokens == 0            ? 0
                       : usage.cached_prompt_tokens + 64 < prompt ? 1
                                                                  : 2;
  first_token_[cache].Observe(Seconds(timing.time_to_first_token));
  const std::array<absl::Duration, 5> stages = {timing.fetch, timing.decode, timing.preprocess,
                                                timing.tokenize, timing.vision};
  for (size_t i = 0; i < stages.size(); ++i) {
    if (stages[i] > absl::ZeroDuration()) stages_[i].Observe(Seconds(stages[i]));
  }
  text_tokens_.Add(static_cast<double>(usage.prompt.text));
  vision_tokens_.Add(static_cast<double>(usage.prompt.vision));
  output_tokens_.Add(static_cast<double>(usage.output_tokens));
  request_text_tokens_.Observe(static_cast<double>(usage.prompt.text));
  request_vision_tokens_.Observe(static_cast<double>(usage.prompt.vision));
  request_output_tokens_.Observe(static_cast<double>(usage.output_tokens));
  CountAttention(result);
}

void RequestMetrics::CountAttention(const GenerateResult& result) const {
  const BranchPairs total = result.account.total();
  pairs_[0].Add(static_cast<double>(total.compressed));
  pairs_[1].Add(static_cast<double>(total.selected));
  pairs_[2].Add(static_cast<double>(total.window));
  pairs_[3].Add(static_cast<double>(total.dense));
  dense_pairs_.Add(static_cast<double>(result.account.dense_pairs));
  if (result.account.dense_pairs > 0) {
    budget_.Observe(static_cast<double>(total.total()) /
                    static_cast<double>(result.account.dense_pairs));
  }
  if (!result.account.gates.empty()) {
    BranchGates mean;
    const auto layers = static_cast<double>(result.account.gates.size());
    for (const BranchGates& gates : result.account.gates) {
      mean.compressed += gates.compressed / layers;
      mean.selected += gates.selected / layers;
      mean.window += gates.window / layers;
    }
    gates_[0].Observe(mean.compressed);
    gates_[1].Observe(mean.selected);
    gates_[2].Observe(mean.window);
  }
  if (result.account.selected_coverage >= 0) coverage_.Observe(result.account.selected_coverage);
  if (result.attention.clamped) clamped_.Add();
  modes_[static_cast<size_t>(result.attention.semantics)].Add();
}

}  // namespace videonsa
