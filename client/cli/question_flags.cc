#include "client/cli/question_flags.h"

#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

using Mode = proto::AttentionConfig;

constexpr std::pair<const char*, Mode::Mode> kAttentionModes[] = {
    {"native", Mode::MODE_NATIVE_SPARSE},     {"dense", Mode::MODE_DENSE},
    {"tri_shape", Mode::MODE_TRI_SHAPE},      {"minference", Mode::MODE_MINFERENCE},
    {"flexprefill", Mode::MODE_FLEX_PREFILL}, {"xattention", Mode::MODE_X_ATTENTION}};
constexpr std::pair<const char*, proto::Priority> kPriorities[] = {
    {"batch", proto::PRIORITY_BATCH},
    {"standard", proto::PRIORITY_STANDARD},
    {"interactive", proto::PRIORITY_INTERACTIVE}};
constexpr std::pair<const char*, proto::PreprocessMode> kModes[] = {
    {"lmms_eval", proto::PREPROCESS_MODE_LMMS_EVAL},
    {"qwen_vl_utils", proto::PREPROCESS_MODE_QWEN_VL_UTILS}};

// Value of a flag that takes one of a few words; `fallback` if the flag is missing.
template <typename T, size_t n>
absl::StatusOr<T> Choice(const ParsedArgs& args, const std::string& flag,
                         const std::pair<const char*, T> (&choices)[n], T fallback) {
  if (!args.Has(flag)) return fallback;
  std::string known;
  for (const auto& [word, value] : choices) {
    if (args.Get(flag) == word) return value;
    absl::StrAppend(&known, known.empty() ? "" : ", ", word);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, ": \"", args.Get(flag), "\" is none of ", known));
}

// Calls set(value) if the flag is there.
template <typename Set>
absl::Status SetNumber(const ParsedArgs& args, const std::string& flag, Set set) {
  if (!args.Has(flag)) return absl::OkStatus();
  absl::StatusOr<double> value = args.Number(flag, 0);
  if (value.ok()) set(*value);
  return value.status();
}

template <typename Set>
absl::Status SetInteger(const ParsedArgs& args, const std::string& flag, Set set) {
  if (!args.Has(flag)) return absl::OkStatus();
  absl::StatusOr<int64_t> value = args.Integer(flag, 0);
  if (!value.ok()) return value.status();
  constexpr int64_t kMost = 2'147'483'647;
  if (flag != "seed" && (*value > kMost || *value < -kMost)) {
    return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", *value, " is too large"));
  }
  set(*value);
  return absl::OkStatus();
}

absl::Status FirstError(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadRange(const std::string& text, proto::TimeRange& range) {
  const size_t dash = text.find('-');
  if (dash == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--range: \"", text, "\" is no range; write 10s-40s, 10s- or -40s"));
  }
  absl::Duration bounds[2] = {absl::ZeroDuration(), absl::InfiniteDuration()};
  const std::string texts[2] = {text.substr(0, dash), text.substr(dash + 1)};
  for (int i = 0; i < 2; ++i) {
    if (texts[i].empty()) continue;
    absl::StatusOr<absl::Duration> time = ParseClipTime(texts[i]);
    if (!time.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--range: ", time.status().message()));
    }
    bounds[i] = *time;
    *(i == 0 ? range.mutable_start_offset() : range.mutable_end_offset()) = ToProto(*time);
  }
  if (bounds[0] >= bounds[1]) {
    return absl::InvalidArgumentError(
        absl::StrCat("--range: \"", text, "\" ends before it begins"));
  }
  return absl::OkStatus();
}

absl::Status AddTurn(const std::string& text, proto::Question& question) {
  absl::string_view rest(text);
  proto::Turn turn;
  if (absl::ConsumePrefix(&rest, "user:")) {
    turn.set_role(proto::Turn::ROLE_USER);
  } else if (absl::ConsumePrefix(&rest, "assistant:")) {
    turn.set_role(proto::Turn::ROLE_ASSISTANT);
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "--turn: \"", Ellipsize(text, 40), "\" must begin with \"user:\" or \"assistant:\""));
  }
  turn.add_parts()->set_text(std::string(absl::StripPrefix(rest, " ")));
  *question.add_turns() = turn;
  return absl::OkStatus();
}

std::vector<Flag> FrameFlags() {
  return {{"fps", "N", "frames per second of clip time"},
          {"num-frames", "N", "exactly so many frames, evenly spaced"},
          {"max-frames", "N", "at most so many frames"},
          {"max-pixels", "N", "at most so many pixels a frame or picture after resizing"},
          {"min-pixels", "N", "at least so many pixels a frame or picture after resizing"},
          {"range", "FROM-TO", "look only at this part: 10s-40s, 1:30-2:00, 10s-"},
          {"mode", "NAME",
           "frames and sizes as in lmms_eval (the published evaluation) or "
           "qwen_vl_utils (upstream)"}};
}

}  // namespace

bool LooksLikePicture(absl::string_view head) {
  return absl::StartsWith(head, "\x89PNG\r\n\x1a\n") || absl::StartsWith(head, "\xff\xd8\xff") ||
         (absl::StartsWith(head, "RIFF") && head.size() >= 12 && head.substr(8, 4) == "WEBP");
}

std::vector<FlagGroup> QuestionFlags() {
  return {
      {"Question",
       {{"question", "TEXT",
         "what to ask; \"-\" reads it from stdin; given several times, the clips are looked at "
         "once",
         'q', true},
        {"image", "FILE", "show a picture too (file, clips/ID or https URL); may be repeated", 0,
         true},
        {"system", "TEXT", "system instruction"},
        {"turn", "ROLE:TEXT",
         "earlier turn, \"user: ...\" or \"assistant: ...\"; may be repeated; "
         "clips are shown in the first user turn",
         0, true}}},
      {"Frames (for every clip)", FrameFlags()},
      {"Attention",
       {{"attention", "NAME",
         "native (as trained), dense, tri_shape, minference, flexprefill or "
         "xattention"},
        {"selected-blocks", "N", "blocks that each query selects"},
        {"window", "N", "sliding window in tokens"},
        {"max-budget", "SHARE", "never spend more than this share of dense attention, 0 to 1"}}},
      {"Answer",
       {{"max-tokens", "N", "longest answer"},
        {"temperature", "N", "0: always the likeliest token"},
        {"top-p", "N", "choose among the likeliest tokens that make up this probability"},
        {"top-k", "N", "choose among so many tokens"},
        {"min-p", "N", "drop tokens below this share of the likeliest"},
        {"seed", "N", "same seed, same answer"},
        {"stop", "TEXT", "stop before this text; may be repeated", 0, true},
        {"repetition-penalty", "N", "above 1: avoid repeating"},
        {"logprobs", "N", "report log-probabilities of so many alternatives a token"},
        {"priority", "NAME", "batch, standard or interactive"}}}};
}

absl::StatusOr<std::vector<VisualSource>> VisualsOf(const ParsedArgs& args) {
  std::vector<VisualSource> visuals;
  for (const auto& [flag, value] : args.in_order()) {
    if (!flag.empty() && flag != "image") continue;
    VisualSource visual{.name = value, .image = flag == "image"};
    if (absl::StartsWith(value, "clips/")) {
      visual.kind = VisualSource::Kind::kStored;
    } else if (absl::StartsWith(value, "https://") || absl::StartsWith(value, "http://")) {
      visual.kind = VisualSource::Kind::kUrl;
    } else {
      std::ifstream file(value, std::ios::binary);
      char head[12] = {};
      file.read(head, sizeof(head));
      if (file.gcount() == 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("cannot read \"", value, "\": no such file, empty, or a folder"));
      }
      if (LooksLikePicture(absl::string_view(head, sizeof(head)))) visual.image = true;
    }
    visuals.push_back(visual);
  }
  return visuals;
}

absl::StatusOr<proto::VideoSampling> SamplingOf(const ParsedArgs& args) {
  proto::VideoSampling sampling;
  if (args.Has("fps") && args.Has("num-frames")) {
    return absl::InvalidArgumentError("--fps and --num-frames exclude each other");
  }
  absl::StatusOr<proto::PreprocessMode> mode =
      Choice(args, "mode", kModes, proto::PREPROCESS_MODE_UNSPECIFIED);
  if (!mode.ok()) return mode.status();
  sampling.set_mode(*mode);
  absl::Status status = FirstError(
      {SetNumber(args, "fps", [&](double v) { sampling.set_fps(v); }),
       SetInteger(args, "num-frames", [&](int64_t v) { sampling.set_num_frames(v); }),
       SetInteger(args, "max-frames", [&](int64_t v) { sampling.set_max_frames(v); }),
       SetInteger(args, "max-pixels", [&](int64_t v) { sampling.set_max_pixels_per_frame(v); }),
       SetInteger(args, "min-pixels", [&](int64_t v) { sampling.set_min_pixels_per_frame(v); })});
  if (status.ok() && args.Has("range")) {
    status = ReadRange(args.Get("range"), *sampling.mutable_range());
  }
  if (!status.ok()) return status;
  return sampling;
}

absl::Status ApplySettings(const ParsedArgs& args, proto::Question& question) {
  absl::StatusOr<Mode::Mode> mode =
      Choice(args, "attention", kAttentionModes, Mode::MODE_UNSPECIFIED);
  if (!mode.ok()) return mode.status();
  absl::StatusOr<proto::Priority> priority =
      Choice(args, "priority", kPriorities, proto::PRIORITY_UNSPECIFIED);
  if (!priority.ok()) return priority.status();
  question.set_priority(*priority);
  proto::AttentionConfig& attention = *question.mutable_attention();
  attention.set_mode(*mode);
  proto::GenerationConfig& generation = *question.mutable_generation();
  for (const std::string& stop : args.All("stop")) generation.add_stop(stop);
  const auto number = [&](const char* flag, auto set) { return SetNumber(args, flag, set); };
  const auto integer = [&](const char* flag, auto set) { return SetInteger(args, flag, set); };
  return FirstError(
      {integer("selected-blocks", [&](int64_t v) { attention.set_selected_blocks(v); }),
       integer("window", [&](int64_t v) { attention.set_window_tokens(v); }),
       number("max-budget", [&](double v) { attention.set_max_budget_fraction(v); }),
       integer("max-tokens", [&](int64_t v) { generation.set_max_output_tokens(v); }),
       number("temperature", [&](double v) { generation.set_temperature(v); }),
       number("top-p", [&](double v) { generation.set_top_p(v); }),
       integer("top-k", [&](int64_t v) { generation.set_top_k(v); }),
       number("min-p", [&](double v) { generation.set_min_p(v); }),
       integer("seed", [&](int64_t v) { generation.set_seed(v); }),
       number("repetition-penalty", [&](double v) { generation.set_repetition_penalty(v); }),
       integer("logprobs", [&](int64_t v) { generation.set_top_logprobs(v); })});
}

absl::StatusOr<proto::Question> QuestionOf(const ParsedArgs& args) {
  proto::Question question;
  question.set_system_instruction(args.Get("system"));
  for (const std::string& turn : args.All("turn")) {
    if (absl::Status status = AddTurn(turn, question); !status.ok()) return status;
  }
  proto::Turn& last = *question.add_turns();
  last.set_role(proto::Turn::ROLE_USER);
  last.add_parts()->set_text(args.Get("question"));
  for (const std::string& text : {args.Get("system"), args.Get("question")}) {
    if (!IsUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  }
  if (absl::Status status = ApplySettings(args, question); !status.ok()) return status;
  return question;
}

void PutVisuals(const std::vector<proto::Part>& visuals, proto::Question& question) {
  for (proto::Turn& turn : *question.mutable_turns()) {
    if (turn.role() != proto::Turn::ROLE_USER) continue;
    google::protobuf::RepeatedPtrField<proto::Part> parts;
    for (const proto::Part& visual : visuals) *parts.Add() = visual;
    for (const proto::Part& part : turn.parts()) *parts.Add() = part;
    turn.mutable_parts()->Swap(&parts);
    return;
  }
}

}  // namespace videonsa::client
