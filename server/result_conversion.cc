#include "server/result_conversion.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "server/proto_time.h"

namespace videonsa {
namespace {

using ::videonsa::ToProto;  // times; found beside the functions below

constexpr size_t kMaxIntervals = 32;
constexpr int kBlockTokens = 64;

v1::PreprocessMode ModeOf(PreprocessMode mode) {
  return mode == PreprocessMode::kLmmsEval ? v1::PREPROCESS_MODE_LMMS_EVAL
                                           : v1::PREPROCESS_MODE_QWEN_VL_UTILS;
}

v1::AttentionConfig::Mode ModeOf(AttentionSemantics semantics) {
  switch (semantics) {
    case AttentionSemantics::kDense:
      return v1::AttentionConfig::MODE_DENSE;
    case AttentionSemantics::kCausalNsa:
    case AttentionSemantics::kReleasedNsa:
      return v1::AttentionConfig::MODE_NATIVE_SPARSE;
    case AttentionSemantics::kTriShape:
      return v1::AttentionConfig::MODE_TRI_SHAPE;
    case AttentionSemantics::kMInference:
      return v1::AttentionConfig::MODE_MINFERENCE;
    case AttentionSemantics::kFlexPrefill:
      return v1::AttentionConfig::MODE_FLEX_PREFILL;
    case AttentionSemantics::kXAttention:
      return v1::AttentionConfig::MODE_X_ATTENTION;
  }
  return v1::AttentionConfig::MODE_UNSPECIFIED;
}

v1::AskResult::FinishReason ReasonOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::AskResult::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::AskResult::FINISH_REASON_LENGTH;
    case FinishReason::kContext:
      return v1::AskResult::FINISH_REASON_CONTEXT;
    case FinishReason::kDeadline:
      return v1::AskResult::FINISH_REASON_DEADLINE;
    case FinishReason::kDrain:
      return v1::AskResult::FINISH_REASON_DRAIN;
  }
  return v1::AskResult::FINISH_REASON_UNSPECIFIED;
}

v1::BranchPairs ToProto(const BranchPairs& pairs) {
  v1::BranchPairs out;
  out.set_compressed(pairs.compressed);
  out.set_selected(pairs.selected);
  out.set_window(pairs.window);
  out.set_dense(pairs.dense);
  out.set_total(pairs.total());
  return out;
}

v1::BranchGates ToProto(const BranchGates& gates) {
  v1::BranchGates out;
  out.set_compressed(gates.compressed);
  out.set_selected(gates.selected);
  out.set_window(gates.window);
  return out;
}

v1::VisualReport ToProto(const VisualReport& visual) {
  v1::VisualReport out;
  out.set_image(visual.image);
  out.set_source_width(visual.source_width);
  out.set_source_height(visual.source_height);
  out.set_width(visual.width);
  out.set_height(visual.height);
  for (const absl::Duration time : visual.frame_times) *out.add_frame_times() = ToProto(time);
  out.set_tokens(visual.tokens);
  out.set_sampled_fps(visual.sampled_fps);
  out.set_frames_decoded(visual.frames_decoded);
  out.set_mode(ModeOf(visual.mode));
  return out;
}

v1::Timing ToProto(const Timing& timing) {
  v1::Timing out;
  *out.mutable_receive_time() = ToProto(timing.receive_time);
  *out.mutable_queue() = ToProto(timing.queue);
  *out.mutable_fetch() = ToProto(timing.fetch);
  *out.mutable_decode() = ToProto(timing.decode);
  *out.mutable_preprocess() = ToProto(timing.preprocess);
  *out.mutable_tokenize() = ToProto(timing.tokenize);
  *out.mutable_vision_encode() = ToProto(timing.vision);
  *out.mutable_prefill() = ToProto(timing.prefill);
  *out.mutable_generate() = ToProto(timing.generate);
  *out.mutable_time_to_first_token() = ToProto(timing.time_to_first_token);
  *out.mutable_mean_inter_token() = ToProto(timing.mean_inter_token);
  *out.mutable_total() = ToProto(timing.total);
  *out.mutable_preempted() = ToProto(timing.preempted);
  out.set_preemptions(timing.preemptions);
  return out;
}

// 2 (B S + W) / (L - 1) of the paper, for the prompt's length; 0 for dense attention.
double PaperFraction(const EffectiveAttention& attention, int64_t prompt_tokens) {
  const bool sparse = attention.semantics == AttentionSemantics::kCausalNsa ||
                      attention.semantics == AttentionSemantics::kReleasedNsa;
  if (!sparse || prompt_tokens < 2) return 0;
  return 2 *
         (static_cast<double>(attention.selected_blocks) * kBlockTokens + attention.window_tokens) /
         static_cast<double>(prompt_tokens - 1);
}

// Which part of a clip one block of prompt tokens shows: tokens of a visual follow its frames.
struct Place {
  int visual = -1;  // of the visual with most tokens in the block; -1: text
  absl::Duration begin, end;
};

Place PlaceOf(const std::vector<VisualReport>& visuals, int64_t block) {
  Place place;
  int64_t most = 0;
  for (size_t i = 0; i < visuals.size(); ++i) {
    const VisualReport& visual = visuals[i];
    const int64_t begin = std::max(block * kBlockTokens, visual.token_begin);
    const int64_t end = std::min((block + 1) * kBlockTokens, visual.token_begin + visual.tokens);
    if (end - begin <= most) continue;
    most = end - begin;
    place.visual = static_cast<int>(i);
    place.begin = place.end = absl::ZeroDuration();
    const auto frames = static_cast<int64_t>(visual.frame_times.size());
    if (frames == 0 || visual.tokens == 0) continue;  // a picture
    const int64_t first = (begin - visual.token_begin) * frames / visual.tokens;
    const int64_t last = (end - 1 - visual.token_begin) * frames / visual.tokens;
    const absl::Duration step =
        visual.sampled_fps > 0 ? absl::Seconds(1 / visual.sampled_fps) : absl::ZeroDuration();
    place.begin = visual.frame_times[static_cast<size_t>(first)];
    place.end = visual.frame_times[static_cast<size_t>(last)] + step;
  }
  return place;
}

void AddEvidence(const GenerateResult& result, v1::AttentionReport& out) {
  std::vector<v1::AttendedInterval> intervals;
  for (size_t block = 0; block < result.account.block_share.size(); ++block) {
    const double share = result.account.block_share[block];
    const Place place = PlaceOf(result.visuals, static_cast<int64_t>(block));
    v1::BlockEvidence& evidence = *out.add_blocks();
    evidence.set_block(static_cast<int32_t>(block));
    evidence.set_clip_index(place.visual);
    evidence.set_share(share);
    if (place.visual < 0 || place.end <= place.begin) continue;
    *evidence.mutable_range()->mutable_start_offset() = ToProto(place.begin);
    *evidence.mutable_range()->mutable_end_offset() = ToProto(place.end);
    // Blocks that show the same frames are one interval.
    if (!intervals.empty() && intervals.back().clip_index() == place.visual &&
        FromProto(intervals.back().range().start_offset()) == place.begin &&
        FromProto(intervals.back().range().end_offset()) == place.end) {
      intervals.back().set_share(intervals.back().share() + share);
      continue;
    }
    v1::AttendedInterval& interval = intervals.emplace_back();
    interval.set_clip_index(place.visual);
    *interval.mutable_range() = evidence.range();
    interval.set_share(share);
  }
  std::stable_sort(intervals.begin(), intervals.end(),
                   [](const auto& a, const auto& b) { return a.share() > b.share(); });
  for (size_t i = 0; i < std::min(intervals.size(), kMaxIntervals); ++i) {
    if (intervals[i].share() > 0) *out.add_intervals() = intervals[i];
  }
}

v1::AttentionReport AttentionOf(const GenerateResult& result, const ReportParams& report) {
  v1::AttentionReport out;
  const EffectiveAttention& effective = result.attention;
  out.set_mode(ModeOf(effective.semantics));
  out.set_semantics(SemanticsName(effective.semantics));
  out.set_copies(effective.copies);
  out.set_clamped(effective.clamped);
  v1::AttentionConfig& config = *out.mutable_effective();
  config.set_mode(out.mode());
  config.set_selected_blocks(effective.selected_blocks);
  config.set_window_tokens(effective.window_tokens);
  const AttentionAccount& account = result.account;
  const BranchPairs total = account.total();
  out.set_dense_pairs(account.dense_pairs);
  *out.mutable_used() = ToProto(total);
  if (account.dense_pairs > 0) {
    const auto dense = static_cast<double>(account.dense_pairs);
    out.set_budget_fraction(static_cast<double>(total.total()) / dense);
    out.set_budget_fraction_without_compressed(
        static_cast<double>(total.total() - total.compressed) / dense);
  }
  out.set_paper_budget_fraction(
      PaperFraction(effective, result.usage.prompt.text + result.usage.prompt.vision));
  BranchGates mean;
  for (const BranchGates& gates : account.gates) {
    const auto layers = static_cast<double>(account.gates.size());
    mean.compressed += gates.compressed / layers;
    mean.selected += gates.selected / layers;
    mean.window += gates.window / layers;
  }
  if (!account.gates.empty()) *out.mutable_mean_gates() = ToProto(mean);
  if (report.per_layer_attention || report.gates) {
    for (size_t i = 0; i < account.layers.size(); ++i) {
      v1::LayerAttention& layer = *out.add_layers();
      layer.set_layer(static_cast<int32_t>(i));
      *layer.mutable_used() = ToProto(account.layers[i]);
      if (i < account.gates.size()) *layer.mutable_mean_gates() = ToProto(account.gates[i]);
    }
  }
  if (report.evidence) AddEvidence(result, out);
  return out;
}

v1::GenerationConfig ToProto(const GenerationParams& params) {
  v1::GenerationConfig out;
  if (params.max_output_tokens) out.set_max_output_tokens(*params.max_output_tokens);
  if (params.temperature) out.set_temperature(*params.temperature);
  if (params.top_p) out.set_top_p(*params.top_p);
  if (params.top_k) out.set_top_k(*params.top_k);
  if (params.min_p) out.set_min_p(*params.min_p);
  if (params.repetition_penalty) out.set_repetition_penalty(*params.repetition_penalty);
  if (params.seed) out.set_seed(*params.seed);
  for (const std::string& stop : params.stop) out.add_stop(stop);
  if (params.want_logprobs) out.set_top_logprobs(params.top_logprobs);
  out.set_ignore_eos(params.ignore_eos);
  return out;
}

v1::KvReuse ToProto(KvReuse reuse) {
  switch (reuse) {
    case KvReuse::kNone:
      return v1::KV_REUSE_NONE;
    case KvReuse::kFeatures:
      return v1::KV_REUSE_FEATURES;
    case KvReuse::kExact:
      return v1::KV_REUSE_EXACT;
  }
  return v1::KV_REUSE_UNSPECIFIED;
}

}  // namespace

std::string ServerVersion() { return VIDEONSA_VERSION; }

v1::PromptTokens ToProto(const PromptTokens& tokens) {
  v1::PromptTokens out;
  out.set_text(tokens.text);
  out.set_vision(tokens.vision);
  return out;
}

v1::TokenLogprob ToProto(const TokenLogprob& token) {
  v1::TokenLogprob out;
  out.set_token_id(token.token_id);
  out.set_logprob(token.logprob);
  for (const TokenLogprob& other : token.alternatives) *out.add_alternatives() = ToProto(other);
  return out;
}

v1::AskResult ToProto(const GenerateResult& result, const ReportParams& report,
                      const ModelFacts& model) {
  v1::AskResult out;
  out.set_finish_reason(ReasonOf(result.finish_reason));
  out.set_matched_stop(result.matched_stop);
  v1::Usage& usage = *out.mutable_usage();
  *usage.mutable_prompt() = ToProto(result.usage.prompt);
  usage.set_cached_prompt_tokens(result.usage.cached_prompt_tokens);
  usage.set_output_tokens(result.usage.output_tokens);
  usage.set_frames_decoded(result.usage.frames_decoded);
  usage.set_frames_used(result.usage.frames_used);
  usage.set_kv_pages_peak(result.usage.kv_pages_peak);
  *out.mutable_timing() = ToProto(result.timing);
  *out.mutable_attention() = AttentionOf(result, report);
  out.set_model_version(absl::StrCat(model.name, "@", model.weights_digest.substr(0, 16)));
  out.set_server_version(ServerVersion());
  for (const VisualReport& visual : result.visuals) *out.add_visuals() = ToProto(visual);
  out.set_kv_reuse(ToProto(result.kv_reuse));
  *out.mutable_effective_generation() = ToProto(result.effective_generation);
  return out;
}

v1::EstimateResponse ToProto(const EstimateResult& result) {
  v1::EstimateResponse out;
  *out.mutable_prompt() = ToProto(result.prompt);
  out.set_frames(result.frames);
  out.set_kv_pages(result.kv_pages);
  out.set_kv_bytes(result.kv_bytes);
  out.set_peak_bytes(result.peak_bytes);
  out.set_budget_fraction(result.budget_fraction);
  out.set_admissible(result.admissible);
  if (!result.admissible) {
    const std::optional<ErrorInfo> info = GetErrorInfo(result.why);
    out.set_reason(info ? info->reason : absl::StatusCodeToString(result.why.code()));
    out.set_message(std::string(result.why.message()));
  }
  *out.mutable_time_to_first_token() = ToProto(result.time_to_first_token);
  *out.mutable_total() = ToProto(result.total);
  for (const VisualReport& visual : result.visuals) *out.add_visuals() = ToProto(visual);
  return out;
}

v1::MediaInfo ToProto(const MediaFacts& facts) {
  v1::MediaInfo out;
  out.set_image(facts.image);
  out.set_container(facts.container);
  out.set_codec(facts.codec);
  out.set_width(facts.width);
  out.set_height(facts.height);
  *out.mutable_duration() = ToProto(facts.duration);
  out.set_average_fps(facts.average_fps);
  out.set_packet_count(facts.packet_count);
  return out;
}

v1::ModelInfo ToProto(const ModelFacts& model, const ServerOptions& options) {
  v1::ModelInfo out;
  out.set_name(model.name);
  out.set_weights_digest(model.weights_digest);
  out.set_dtype(model.compute_type);
  out.set_layers(model.layers);
  out.set_heads(model.q_heads);
  out.set_kv_heads(model.kv_heads);
  out.set_max_context_tokens(model.max_context_tokens);
  out.mutable_sparse_attention()->set_block_tokens(model.block_tokens);
  out.mutable_sparse_attention()->set_selected_blocks(model.selected_blocks);
  out.mutable_sparse_attention()->set_window_tokens(model.window_tokens);
  v1::Limits& limits = *out.mutable_limits();
  limits.set_max_frames(model.max_frames);
  limits.set_max_fps(options.question.max_fps);
  limits.set_max_clip_bytes(options.clips.max_clip_bytes);
  limits.set_max_inline_clip_bytes(options.question.max_inline_bytes);
  limits.set_max_clips_per_question(options.question.max_clips);
  limits.set_max_output_tokens(model.max_output_tokens);
  out.set_attention_semantics(SemanticsName(model.semantics));
  out.set_preprocess_mode(ModeOf(model.preprocess_mode));
  out.set_default_fps(model.default_fps);
  out.set_vocab_size(model.vocab_size);
  out.set_random_weights(model.random_weights);
  return out;
}

}  // namespace videonsa
