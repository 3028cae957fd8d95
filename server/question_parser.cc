#include "server/question_parser.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/proto_time.h"
#include "server/status_conversion.h"

namespace videonsa {
namespace {

// Upper bound on pixels of one visual after resize: 64 Mpixel, beyond any resize of the model.
constexpr int kMaxPixels = 1 << 26;
constexpr int kMinPixels = 28 * 28;  // one merged patch

absl::Status OutOfRange(const std::string& field, const std::string& value,
                        const std::string& range) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   ErrorInfo{.reason = "FIELD_INVALID",
                             .metadata = {{"value", value}, {"range", range}},
                             .field = field},
                   absl::StrCat(field, ": is ", value, ", must be ", range));
}

// Reads an optional field of the wire into an optional of ours when `ok` holds for it.
template <typename T, typename U, typename Ok>
absl::Status Take(bool present, T value, Ok ok, const char* field, const char* range,
                  std::optional<U>& out) {
  if (!present) return absl::OkStatus();
  if (!ok(value)) return OutOfRange(field, absl::StrCat(value), range);
  out = static_cast<U>(value);
  return absl::OkStatus();
}

absl::Status ParseMode(v1::PreprocessMode in, const std::string& field,
                       std::optional<PreprocessMode>& out) {
  switch (in) {
    case v1::PREPROCESS_MODE_UNSPECIFIED:
      return absl::OkStatus();
    case v1::PREPROCESS_MODE_LMMS_EVAL:
      out = PreprocessMode::kLmmsEval;
      return absl::OkStatus();
    case v1::PREPROCESS_MODE_QWEN_VL_UTILS:
      out = PreprocessMode::kQwenVlUtils;
      return absl::OkStatus();
    default:
      return OutOfRange(field, absl::StrCat(static_cast<int>(in)), "a known mode");
  }
}

absl::Status ParsePixels(int64_t min, int64_t max, const std::string& min_field,
                         const std::string& max_field, std::optional<int64_t>& min_out,
                         std::optional<int64_t>& max_out) {
  const std::string range = absl::StrCat("0 or ", kMinPixels, " to ", kMaxPixels);
  if (min != 0 && (min < kMinPixels || min > kMaxPixels)) {
    return OutOfRange(min_field, absl::StrCat(min), range);
  }
  if (max != 0 && (max < kMinPixels || max > kMaxPixels)) {
    return OutOfRange(max_field, absl::StrCat(max), range);
  }
  if (min != 0 && max != 0 && min > max) {
    return OutOfRange(min_field, absl::StrCat(min), absl::StrCat("at most the maximum, ", max));
  }
  if (min != 0) min_out = min;
  if (max != 0) max_out = max;
  return absl::OkStatus();
}

}  // namespace

// The bytes of a clip or picture from either of its sources; exactly one must be set.
template <typename Input>
absl::Status QuestionParser::ResolveSource(const Input& input, const std::string& field,
                                           const Sources& sources, MediaSource& source,
                                           std::vector<std::shared_ptr<void>>& holds) const {
  const int64_t max_inline = limits_.max_inline_bytes;
  switch (input.source_case()) {
    case Input::kClip: {
      VNSA_ASSIGN_OR_RETURN(ClipLease lease, sources.resolve(input.clip()));
      source = std::move(lease.source);
      holds.push_back(std::move(lease.hold));
      return absl::OkStatus();
    }
    case Input::kInlineData: {
      const auto size = static_cast<int64_t>(input.inline_data().size());
      if (size == 0) return InvalidField(absl::StrCat(field, ".inline_data"), "is empty");
      if (size > max_inline) {
        return MakeError(absl::StatusCode::kInvalidArgument,
                         ErrorInfo{.reason = "MEDIA_TOO_LARGE",
                                   .metadata = {{"bytes", absl::StrCat(size)},
                                                {"limit", absl::StrCat(max_inline)}},
                                   .field = absl::StrCat(field, ".inline_data")},
                         absl::StrCat(field, ".inline_data: has ", size, " bytes, limit ",
                                      max_inline, "; upload it instead"));
      }
      source.bytes = std::make_shared<const std::string>(input.inline_data());
      source.sha256 = Sha256Of(*source.bytes);
      return absl::OkStatus();
    }
    case Input::kUrl:
      return sources.check_url(input.url());
    case Input::SOURCE_NOT_SET:
      break;
  }
  return InvalidField(field, "names no source: set clip, url or inline_data");
}

absl::StatusOr<ParsedQuestion> QuestionParser::Parse(const v1::Question& question,
                                                     const Resolver& resolve,
                                                     const UrlCheck& check_url) const {
  ParsedQuestion out;
  GenerateRequest& request = out.request;
  request.system_instruction = question.system_instruction();
  VNSA_RETURN_IF_ERROR(ParseGeneration(question.generation(), request.generation));
  VNSA_RETURN_IF_ERROR(ParseAttention(question.attention(), request.attention));
  request.report.per_layer_attention = question.report().per_layer_attention();
  request.report.evidence = question.report().attended_intervals();
  request.report.gates = question.report().gates();
  switch (question.priority()) {
    case v1::PRIORITY_UNSPECIFIED:
    case v1::PRIORITY_STANDARD:
      request.priority = Priority::kStandard;
      break;
    case v1::PRIORITY_BATCH:
      request.priority = Priority::kBatch;
      break;
    case v1::PRIORITY_INTERACTIVE:
      request.priority = Priority::kInteractive;
      break;
    default:
      return OutOfRange("question.priority", absl::StrCat(static_cast<int>(question.priority())),
                        "a known priority");
  }
  VNSA_RETURN_IF_ERROR(ParseTurns(question, {resolve, check_url}, out));
  return out;
}

absl::Status QuestionParser::ParseTurns(const v1::Question& question, const Sources& sources,
                                        ParsedQuestion& out) const {
  if (question.turns().empty())
    return InvalidField("question.turns", "is empty, must be at least 1");
  if (question.turns_size() > limits_.max_turns) {
    return OutOfRange("question.turns", absl::StrCat(question.turns_size()),
                      absl::StrCat("at most ", limits_.max_turns, " turns"));
  }
  Budget budget;
  VNSA_RETURN_IF_ERROR(
      AddText(question.system_instruction(), "question.system_instruction", budget));
  for (int i = 0; i < question.turns_size(); ++i) {
    const v1::Turn& in = question.turns(i);
    const std::string field = absl::StrCat("question.turns[", i, "]");
    Turn turn;
    if (in.role() == v1::Turn::ROLE_ASSISTANT) {
      turn.role = Role::kAssistant;
    } else if (in.role() != v1::Turn::ROLE_USER) {
      return OutOfRange(absl::StrCat(field, ".role"), absl::StrCat(static_cast<int>(in.role())),
                        "ROLE_USER or ROLE_ASSISTANT");
    }
    if (in.parts().empty()) return InvalidField(absl::StrCat(field, ".parts"), "is empty");
    if (in.parts_size() > limits_.max_parts_per_turn) {
      return OutOfRange(absl::StrCat(field, ".parts"), absl::StrCat(in.parts_size()),
                        absl::StrCat("at most ", limits_.max_parts_per_turn, " parts"));
    }
    for (int j = 0; j < in.parts_size(); ++j) {
      VNSA_RETURN_IF_ERROR(
          AddPart(in.parts(j), absl::StrCat(field, ".parts[", j, "]"), sources, turn, budget, out));
    }
    out.request.turns.push_back(std::move(turn));
  }
  if (out.request.turns.back().role != Role::kUser) {
    return InvalidField(absl::StrCat("question.turns[", question.turns_size() - 1, "].role"),
                        "the last turn must be the user's");
  }
  return absl::OkStatus();
}

absl::Status QuestionParser::AddText(const std::string& text, const std::string& field,
                                     Budget& budget) const {
  budget.text_bytes += static_cast<int64_t>(text.size());
  if (budget.text_bytes <= limits_.max_text_bytes) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   ErrorInfo{.reason = "TEXT_TOO_LONG",
                             .metadata = {{"bytes", absl::StrCat(budget.text_bytes)},
                                          {"limit", absl::StrCat(limits_.max_text_bytes)}},
                             .field = field},
                   absl::StrCat(field, ": texts have ", budget.text_bytes,
                                " bytes up to here, limit ", limits_.max_text_bytes));
}

absl::Status QuestionParser::AddPart(const v1::Part& part, const std::string& field,
                                     const Sources& sources, Turn& turn, Budget& budget,
                                     ParsedQuestion& out) const {
  if (part.content_case() == v1::Part::kText) {
    if (part.text().empty()) return InvalidField(absl::StrCat(field, ".text"), "is empty");
    VNSA_RETURN_IF_ERROR(AddText(part.text(), absl::StrCat(field, ".text"), budget));
    turn.parts.emplace_back(TextPart{part.text()});
    return absl::OkStatus();
  }
  if (part.content_case() == v1::Part::CONTENT_NOT_SET) {
    return InvalidField(field, "is empty: set text, clip or image");
  }
  if (turn.role == Role::kAssistant) {
    return InvalidField(field, "only user turns may hold clips and pictures");
  }
  if (++budget.visuals > limits_.max_clips) {
    return OutOfRange(field, absl::StrCat("clip ", budget.visuals),
                      absl::StrCat("at most ", limits_.max_clips, " clips and pictures"));
  }
  if (part.content_case() == v1::Part::kClip) {
    VideoPart video;
    VNSA_ASSIGN_OR_RETURN(video.sampling, ParseSampling(part.clip().sampling(),
                                                        absl::StrCat(field, ".clip.sampling")));
    VNSA_RETURN_IF_ERROR(
        ResolveSource(part.clip(), absl::StrCat(field, ".clip"), sources, video.source, out.holds));
    turn.parts.emplace_back(std::move(video));
    return absl::OkStatus();
  }
  ImagePart image;
  const std::string image_field = absl::StrCat(field, ".image");
  VNSA_RETURN_IF_ERROR(ParsePixels(part.image().min_pixels(), part.image().max_pixels(),
                                   absl::StrCat(image_field, ".min_pixels"),
                                   absl::StrCat(image_field, ".max_pixels"), image.min_pixels,
                                   image.max_pixels));
  VNSA_RETURN_IF_ERROR(
      ParseMode(part.image().mode(), absl::StrCat(image_field, ".mode"), image.mode));
  VNSA_RETURN_IF_ERROR(ResolveSource(part.image(), image_field, sources, image.source, out.holds));
  turn.parts.emplace_back(std::move(image));
  return absl::OkStatus();
}

absl::StatusOr<VideoSampling> QuestionParser::ParseSampling(const v1::VideoSampling& in,
                                                            const std::string& field) const {
  VideoSampling out;
  if (in.rule_case() == v1::VideoSampling::kFps) {
    if (!(in.fps() > 0 && in.fps() <= limits_.max_fps)) {
      return OutOfRange(absl::StrCat(field, ".fps"), absl::StrCat(in.fps()),
                        absl::StrCat("above 0 and at most ", limits_.max_fps));
    }
    out.fps = in.fps();
  }
  const auto too_many = [&](const char* name, int frames) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        ErrorInfo{.reason = "TOO_MANY_FRAMES",
                  .metadata = {{"frames", absl::StrCat(frames)},
                               {"limit", absl::StrCat(model_.max_frames)}},
                  .field = absl::StrCat(field, ".", name)},
        absl::StrCat(field, ".", name, ": is ", frames, ", limit ", model_.max_frames));
  };
  if (in.rule_case() == v1::VideoSampling::kNumFrames) {
    if (in.num_frames() > model_.max_frames) return too_many("num_frames", in.num_frames());
    if (in.num_frames() < 2) {
      return OutOfRange(absl::StrCat(field, ".num_frames"), absl::StrCat(in.num_frames()),
                        absl::StrCat("2 to ", model_.max_frames));
    }
    if (in.max_frames() != 0) {
      return InvalidField(absl::StrCat(field, ".max_frames"), "excludes num_frames");
    }
    out.num_frames = in.num_frames();
  }
  if (in.max_frames() > model_.max_frames) return too_many("max_frames", in.max_frames());
  if (in.max_frames() != 0) {
    if (in.max_frames() < 2) {
      return OutOfRange(absl::StrCat(field, ".max_frames"), absl::StrCat(in.max_frames()),
                        absl::StrCat("0, or 2 to ", model_.max_frames));
    }
    out.max_frames = in.max_frames();
  }
  VNSA_RETURN_IF_ERROR(ParsePixels(in.min_pixels_per_frame(), in.max_pixels_per_frame(),
                                   absl::StrCat(field, ".min_pixels_per_frame"),
                                   absl::StrCat(field, ".max_pixels_per_frame"), out.min_pixels,
                                   out.max_pixels));
  VNSA_RETURN_IF_ERROR(ParseMode(in.mode(), absl::StrCat(field, ".mode"), out.mode));
  const auto take_offset = [&field](bool present, const google::protobuf::Duration& wire,
                                    const char* name, std::optional<absl::Duration>& offset) {
    if (!present) return absl::OkStatus();
    offset = FromProto(wire);
    if (offset && *offset >= absl::ZeroDuration()) return absl::OkStatus();
    return InvalidField(absl::StrCat(field, ".range.", name), "must be a duration of at least 0");
  };
  VNSA_RETURN_IF_ERROR(take_offset(in.range().has_start_offset(), in.range().start_offset(),
                                   "start_offset", out.range_begin));
  VNSA_RETURN_IF_ERROR(take_offset(in.range().has_end_offset(), in.range().end_offset(),
                                   "end_offset", out.range_end));
  if (out.range_end && out.range_begin.value_or(absl::ZeroDuration()) >= *out.range_end) {
    return InvalidField(absl::StrCat(field, ".range"), "ends before it starts");
  }
  return out;
}

absl::Status QuestionParser::ParseGeneration(const v1::GenerationConfig& in,
                                             GenerationParams& out) const {
  const auto max_tokens = model_.max_output_tokens;
  if (in.has_max_output_tokens() &&
      (in.max_output_tokens() < 1 || in.max_output_tokens() > max_tokens)) {
    return OutOfRange("question.generation.max_output_tokens", absl::StrCat(in.max_output_tokens()),
                      absl::StrCat("1 to ", max_tokens));
  }
  if (in.has_max_output_tokens()) out.max_output_tokens = in.max_output_tokens();
  VNSA_RETURN_IF_ERROR(Take(
      in.has_temperature(), in.temperature(), [](float v) { return v >= 0 && v <= 10; },
      "question.generation.temperature", "0 to 10", out.temperature));
  VNSA_RETURN_IF_ERROR(Take(
      in.has_top_p(), in.top_p(), [](float v) { return v > 0 && v <= 1; },
      "question.generation.top_p", "above 0 and at most 1", out.top_p));
  VNSA_RETURN_IF_ERROR(Take(
      in.has_top_k(), in.top_k(), [](int v) { return v >= 0; }, "question.generation.top_k",
      "at least 0", out.top_k));
  VNSA_RETURN_IF_ERROR(Take(
      in.has_min_p(), in.min_p(), [](float v) { return v >= 0 && v < 1; },
      "question.generation.min_p", "at least 0 and below 1", out.min_p));
  VNSA_RETURN_IF_ERROR(Take(
      in.has_repetition_penalty(), in.repetition_penalty(),
      [](float v) { return v > 0 && std::isfinite(v); }, "question.generation.repetition_penalty",
      "above 0 and finite", out.repetition_penalty));
  if (in.has_seed()) out.seed = in.seed();
  if (in.stop_size() > limits_.max_stops) {
    return OutOfRange("question.generation.stop", absl::StrCat(in.stop_size()),
                      absl::StrCat("at most ", limits_.max_stops, " texts"));
  }
  for (int i = 0; i < in.stop_size(); ++i) {
    const auto size = static_cast<int>(in.stop(i).size());
    if (size < 1 || size > limits_.max_stop_bytes) {
      return OutOfRange(absl::StrCat("question.generation.stop[", i, "]"),
                        absl::StrCat(size, " bytes"),
                        absl::StrCat("1 to ", limits_.max_stop_bytes, " bytes"));
    }
    out.stop.push_back(in.stop(i));
  }
  if (in.has_top_logprobs()) {
    if (in.top_logprobs() < 0 || in.top_logprobs() > limits_.max_top_logprobs) {
      return OutOfRange("question.generation.top_logprobs", absl::StrCat(in.top_logprobs()),
                        absl::StrCat("0 to ", limits_.max_top_logprobs));
    }
    out.want_logprobs = true;
    out.top_logprobs = in.top_logprobs();
  }
  out.ignore_eos = in.ignore_eos();
  return absl::OkStatus();
}

absl::Status QuestionParser::ParseAttention(const v1::AttentionConfig& in,
                                            AttentionParams& out) const {
  switch (in.mode()) {
    case v1::AttentionConfig::MODE_UNSPECIFIED:
      break;
    case v1::AttentionConfig::MODE_NATIVE_SPARSE:
      // Which of the two is a property of the checkpoint.
      if (model_.semantics != AttentionSemantics::kCausalNsa &&
          model_.semantics != AttentionSemantics::kReleasedNsa) {
        return InvalidField("question.attention.mode",
                            absl::StrCat("the model was trained with ",
                                         SemanticsName(model_.semantics), " attention"));
      }
      out.semantics = model_.semantics;
      break;
    case v1::AttentionConfig::MODE_DENSE:
      out.semantics = AttentionSemantics::kDense;
      break;
    case v1::AttentionConfig::MODE_TRI_SHAPE:
      out.semantics = AttentionSemantics::kTriShape;
      break;
    case v1::AttentionConfig::MODE_MINFERENCE:
      out.semantics = AttentionSemantics::kMInference;
      break;
    case v1::AttentionConfig::MODE_FLEX_PREFILL:
      out.semantics = AttentionSemantics::kFlexPrefill;
      break;
    case v1::AttentionConfig::MODE_X_ATTENTION:
      out.semantics = AttentionSemantics::kXAttention;
      break;
    default:
      return OutOfRange("question.attention.mode", absl::StrCat(static_cast<int>(in.mode())),
                        "a known mode");
  }
  VNSA_RETURN_IF_ERROR(Take(
      in.has_selected_blocks(), in.selected_blocks(), [](int v) { return v >= 1 && v <= 4096; },
      "question.attention.selected_blocks", "1 to 4096", out.selected_blocks));
  VNSA_RETURN_IF_ERROR(Take(
      in.has_window_tokens(), in.window_tokens(), [](int v) { return v >= 1 && v <= 1 << 20; },
      "question.attention.window_tokens", "1 to 1048576", out.window_tokens));
  return Take(
      in.has_max_budget_fraction(), in.max_budget_fraction(),
      [](double v) { return v > 0 && v <= 1; }, "question.attention.max_budget_fraction",
      "above 0 and at most 1", out.max_budget_fraction);
}

}  // namespace videonsa
