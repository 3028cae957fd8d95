// Kind `accuracy`: what a trained model answers about encoded clips, on the CPU in fp32 and bf16
// and, with --device cuda, on a GPU in both.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/status_macros.h"
#include "runtime/executor/model_executor.h"
#include "runtime/text/chat_config.h"
#include "runtime/text/prompt_layout.h"
#include "runtime/text/tokenizer.h"
#include "tests/golden/check_device.h"
#include "tests/golden/checks.h"
#include "tests/golden/media_reader.h"

namespace videonsa::golden {
namespace {

constexpr int kAnswerTokens = 16;
constexpr double kMostPoints = 1.0;  // of accuracy, from the CPU's in fp32

struct Answer {
  std::vector<int32_t> ids;
  std::string text;
  std::vector<std::vector<float>> logits;  // of every id
};

class LogitKeeper : public ForwardObserver {
 public:
  LogitKeeper(Backend& backend, Answer& answer) : backend_(backend), answer_(answer) {}
  void OnLogits(int, const TensorView& logits) override {
    answer_.logits.push_back(HostFloats(backend_, logits));
  }

 private:
  Backend& backend_;
  Answer& answer_;
};

// One way of running the model, and how it did.
struct Variant {
  std::string name;
  std::unique_ptr<ModelExecutor> executor;
  int right = 0;
  int as_first = 0;    // answers with the ids of the first variant
  double largest = 0;  // difference of a logit, up to the first other id
  std::map<std::string, int> right_of_type;
};

// A question with its visuals in memory.
struct Item {
  nlohmann::json json;
  std::vector<LoadedVisual> visuals;
};

absl::StatusOr<std::vector<LoadedVisual>> LoadVisuals(const nlohmann::json& item,
                                                      const std::string& folder,
                                                      MediaLoader& loader) {
  const nlohmann::json& sampling = item["sampling"];
  const int64_t min_pixels = sampling["min_pixels_per_frame"];
  const int64_t max_pixels = sampling["max_pixels_per_frame"];
  std::vector<LoadedVisual> visuals;
  for (const nlohmann::json& visual : item["visuals"]) {
    const MediaSource source{.path = JoinPath(folder, visual["file"])};
    absl::StatusOr<LoadedVisual> loaded;
    if (visual["kind"] == "image") {
      loaded = loader.LoadImage({source, min_pixels, max_pixels, {}}, {});
    } else {
      VideoSampling how;
      how.fps = sampling["fps"].get<double>();
      how.min_pixels = min_pixels;
      how.max_pixels = max_pixels;
      loaded = loader.LoadVideo(source, how, {});
    }
    if (!loaded.ok()) return loaded.status();
    visuals.push_back(*std::move(loaded));
  }
  return visuals;
}

// Asks all turns of an item; earlier turns hold the variant's own answers.
class Asker {
 public:
  Asker(const Tokenizer& tokenizer, const ChatTokens& tokens)
      : tokenizer_(tokenizer), tokens_(tokens) {}

  absl::StatusOr<Answer> Ask(const Item& item, ModelExecutor& executor) const {
    ChatPrompt chat;
    Answer answer;
    for (const nlohmann::json& turn : item.json["turns"]) {
      ChatTurn user;
      if (chat.turns.empty()) {
        for (size_t i = 0; i < item.visuals.size(); ++i) {
          const LoadedVisual& visual = item.visuals[i];
          user.parts.push_back({true, static_cast<int>(i), ""});
          chat.visuals.push_back({visual.report.image, visual.grid, visual.second_per_grid});
        }
      } else {
        chat.turns.push_back({ChatRole::kAssistant, {{false, 0, answer.text}}, {}});
      }
      user.parts.push_back({false, 0, turn["q"].get<std::string>()});
      chat.turns.push_back(std::move(user));
      VNSA_ASSIGN_OR_RETURN(PromptLayout layout, LayOutPrompt(tokenizer_, tokens_, chat));
      VNSA_ASSIGN_OR_RETURN(answer, Generate(std::move(layout), item.visuals, executor));
    }
    return answer;
  }

 private:
  static SequenceSpec SpecOf(PromptLayout layout, const std::vector<LoadedVisual>& visuals,
                             const ExecutorInfo& info) {
    SequenceSpec spec;
    spec.id = SequenceId{1};
    spec.token_ids = std::move(layout.token_ids);
    spec.positions = std::move(layout.positions);
    spec.next_position = layout.next_position;
    spec.vision_spans = std::move(layout.vision_spans);
    for (const LoadedVisual& visual : visuals) spec.visuals.push_back(WholePatches(visual.patches));
    spec.sampling.max_output_tokens = kAnswerTokens;
    spec.attention.semantics = info.semantics;
    spec.attention.selected_blocks = info.selected_blocks;
    spec.attention.window_tokens = info.window_tokens;
    spec.page_ids.resize((spec.token_ids.size() + kAnswerTokens) / kPageTokens + 1);
    std::iota(spec.page_ids.begin(), spec.page_ids.end(), 0);
    return spec;
  }

  absl::StatusOr<Answer> Generate(PromptLayout layout, const std::vector<LoadedVisual>& visuals,
                                  ModelExecutor& executor) const {
    const SequenceSpec spec = SpecOf(std::move(layout), visuals, executor.info());
    Answer answer;
    LogitKeeper keeper(executor.backend(), answer);
    StepPlan plan;
    for (size_t i = 0; i < spec.visuals.size(); ++i) {
      plan.vision.push_back({spec.id, static_cast<int>(i), 0, spec.visuals[i]->grid().t});
    }
    plan.prefill.push_back(
        {spec.id, 0, static_cast<int>(spec.token_ids.size()), 0, executor.info().num_layers});
    VNSA_RETURN_IF_ERROR(executor.AddSequence(spec));
    executor.Observe(spec.id, &keeper);
    while (static_cast<int>(answer.ids.size()) < kAnswerTokens) {
      VNSA_ASSIGN_OR_RETURN(const StepResult result, executor.Run(plan));
      if (result.tokens.size() != 1) return absl::InternalError("a step without a token");
      answer.ids.push_back(result.tokens[0].token_id);
      if (result.tokens[0].is_stop_token) break;
      plan = StepPlan{answer.ids.size(), {}, {}, {spec.id}};
    }
    executor.ReleaseSequence(spec.id);
    answer.text = std::string(absl::StripAsciiWhitespace(tokenizer_.Decode(answer.ids)));
    return answer;
  }

  const Tokenizer& tokenizer_;
  const ChatTokens tokens_;
};

// Largest difference of a logit over the steps that have the same past on both sides.
double LargestDifference(const Answer& want, const Answer& have) {
  double largest = 0;
  for (size_t step = 0; step < want.ids.size() && step < have.ids.size(); ++step) {
    for (size_t i = 0; i < want.logits[step].size(); ++i) {
      const double difference = std::abs(double{have.logits[step][i]} - want.logits[step][i]);
      largest = std::max(largest, std::isnan(difference) ? INFINITY : difference);
    }
    if (want.ids[step] != have.ids[step]) break;
  }
  return largest;
}

absl::StatusOr<std::vector<Variant>> MakeVariants(const GoldenOptions& options) {
  std::vector<Variant> variants;
  const auto add = [&](const char* name, DeviceKind device, ComputeType type) -> absl::Status {
    VNSA_ASSIGN_OR_RETURN(auto executor, MakeExecutor(options.dir, device, type));
    variants.push_back({name, std::move(executor), 0, 0, 0, {}});
    return absl::OkStatus();
  };
  VNSA_RETURN_IF_ERROR(add("cpu fp32", DeviceKind::kCpu, ComputeType::kF32));
  VNSA_RETURN_IF_ERROR(add("cpu bf16", DeviceKind::kCpu, ComputeType::kBF16));
  if (options.cuda) {
    VNSA_RETURN_IF_ERROR(add("cuda fp32", DeviceKind::kCuda, ComputeType::kF32));
    VNSA_RETURN_IF_ERROR(add("cuda bf16", DeviceKind::kCuda, ComputeType::kBF16));
  }
  return variants;
}

absl::Status AskAll(const Item& item, const Asker& asker, std::vector<Variant>& variants) {
  const std::string right = item.json["turns"].back()["a"], type = item.json["type"];
  std::vector<Answer> answers;
  std::string texts;
  for (Variant& variant : variants) {
    VNSA_ASSIGN_OR_RETURN(Answer answer, asker.Ask(item, *variant.executor));
    answers.push_back(std::move(answer));
    variant.right += answers.back().text == right;
    variant.right_of_type[type] += answers.back().text == right;
    variant.as_first += answers.back().ids == answers[0].ids;
    variant.largest = std::max(variant.largest, LargestDifference(answers[0], answers.back()));
    absl::StrAppend(&texts, ", ", variant.name, " \"", answers.back().text, "\"");
  }
  const bool alike = std::all_of(answers.begin(), answers.end(),
                                 [&](const Answer& a) { return a.ids == answers[0].ids; });
  if (!alike) {
    std::printf("%d %s: right is \"%s\"%s\n", item.json["id"].get<int>(), type.c_str(),
                right.c_str(), texts.c_str());
  }
  return absl::OkStatus();
}

double Percent(int part, int all) { return 100.0 * part / std::max(1, all); }

void PrintTable(const std::map<std::string, int>& asked, const std::vector<Variant>& variants) {
  std::printf("%-14s %5s", "type", "asked");
  for (const Variant& variant : variants) std::printf(" %10s", variant.name.c_str());
  for (const auto& [type, count] : asked) {
    std::printf("\n%-14s %5d", type.c_str(), count);
    for (const Variant& variant : variants) {
      std::printf(" %8.1f %%", Percent(variant.right_of_type.at(type), count));
    }
  }
  std::printf("\n");
}

}  // namespace

void CheckAccuracy(const GoldenOptions& options, Reporter& reporter) {
  const absl::StatusOr<nlohmann::json> set = ReadJson(JoinPath(options.data, "questions.json"));
  const auto tokenizer = Tokenizer::Load(options.dir);
  const auto loader = NewLoader();
  if (!reporter.ExpectOk("questions", options.data, set.status()) ||
      !reporter.ExpectOk("tokenizer", options.dir, tokenizer.status()) ||
      !reporter.ExpectOk("decoder", DecoderBinary(), loader.status())) {
    return;
  }
  const auto chat = ReadChatConfig(options.dir, **tokenizer);
  auto variants = MakeVariants(options);
  if (!reporter.ExpectOk("chat", options.dir, chat.status()) ||
      !reporter.ExpectOk("model", options.dir, variants.status())) {
    return;
  }
  const Asker asker(**tokenizer, chat->tokens);
  std::map<std::string, int> asked;
  int count = 0;
  for (const nlohmann::json& json : (*set)["items"]) {
    if (options.most > 0 && count == options.most) break;
    const std::string label = absl::StrCat("item ", json["id"].get<int>());
    auto visuals = LoadVisuals(json, options.data, **loader);
    if (!reporter.ExpectOk(label, "visuals", visuals.status())) return;
    if (!reporter.ExpectOk(label, "answer", AskAll({json, *std::move(visuals)}, asker, *variants)))
      return;
    ++asked[json["type"]];
    ++count;
  }
  PrintTable(asked, *variants);
  const Variant& first = variants->front();
  for (const Variant& variant : *variants) {
    const double points = Percent(variant.right, count) - Percent(first.right, count);
    reporter.Record(
        variant.right > 0 && std::abs(points) <= kMostPoints, variant.name, "accuracy",
        absl::StrFormat("%d of %d right (%.1f %%), %+.1f points, ids of %d answers (%.1f %%) as on "
                        "the CPU in fp32, largest difference of a logit %.3g",
                        variant.right, count, Percent(variant.right, count), points,
                        variant.as_first, Percent(variant.as_first, count), variant.largest));
  }
}

}  // namespace videonsa::golden
