// Position tables: {"special_ids", "cases": [{"name", "image_grid_thw", "video_grid_thw",
// "second_per_grid_ts", "next_position"}]} with tensors <name>.input_ids, <name>.position_ids and
// <name>.vision_mask.
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/prompt_layout.h"
#include "tests/golden/checks.h"

namespace videonsa::golden {
namespace {

using nlohmann::json;

std::vector<PatchGrid> GridsOf(const json& item, const char* key) {
  const std::vector<int64_t> values =
      item.contains(key) ? IntegersOf(item[key]) : std::vector<int64_t>();
  std::vector<PatchGrid> grids;
  for (size_t i = 0; i + 3 <= values.size(); i += 3) {
    grids.push_back({static_cast<int>(values[i]), static_cast<int>(values[i + 1]),
                     static_cast<int>(values[i + 2])});
  }
  return grids;
}

// The visuals in prompt order: the kind of each follows from the pad after its vision_start.
std::vector<VisualShape> VisualsOf(const json& item, const std::vector<int32_t>& ids,
                                   const ChatTokens& tokens) {
  const std::vector<PatchGrid> images = GridsOf(item, "image_grid_thw");
  const std::vector<PatchGrid> videos = GridsOf(item, "video_grid_thw");
  std::vector<VisualShape> visuals;
  size_t image = 0, video = 0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    if (ids[i] != tokens.vision_start) continue;
    if (ids[i + 1] == tokens.image_pad && image < images.size()) {
      visuals.push_back({.image = true, .grid = images[image++]});
    } else if (ids[i + 1] == tokens.video_pad && video < videos.size()) {
      VisualShape shape{.image = false, .grid = videos[video]};
      if (item.contains("second_per_grid_ts") && item["second_per_grid_ts"].is_array() &&
          video < item["second_per_grid_ts"].size()) {
        shape.second_per_grid = item["second_per_grid_ts"][video].get<double>();
      }
      visuals.push_back(shape);
      ++video;
    }
  }
  return visuals;
}

void CheckTable(const GoldenCase& golden, const json& item, const ChatTokens& tokens,
                Reporter& reporter) {
  const std::string name = item["name"].get<std::string>();
  const GoldenTensor* input = golden.Find(name + ".input_ids");
  if (input == nullptr) return reporter.Record(false, name, "input_ids", "not in the golden file");
  const std::vector<int64_t> wide = input->Integers();
  PromptLayout layout;
  layout.token_ids.assign(wide.begin(), wide.end());
  const std::vector<VisualShape> visuals = VisualsOf(item, layout.token_ids, tokens);
  auto spans = FindVisionSpans(layout.token_ids, tokens, visuals);
  if (!reporter.ExpectOk(name, "spans", spans.status())) return;
  layout.vision_spans = *std::move(spans);
  if (!reporter.ExpectOk(name, "positions",
                         AssignPositions(tokens.tokens_per_second, visuals, layout))) {
    return;
  }
  reporter.ExpectEqual(golden, name + ".position_ids", layout.positions);
  const size_t num_tokens = layout.token_ids.size();
  if (golden.Find(name + ".vision_mask") != nullptr) {
    std::vector<int32_t> mask(num_tokens);
    for (size_t i = 0; i < num_tokens; ++i) {
      mask[i] = layout.positions[i] != layout.positions[num_tokens + i] ||
                layout.positions[i] != layout.positions[2 * num_tokens + i];
    }
    reporter.ExpectEqual(golden, name + ".vision_mask", mask);
  }
  if (item.contains("next_position") && item["next_position"].is_number_integer()) {
    reporter.ExpectEqual(name, "next_position", std::vector<int32_t>{layout.next_position},
                         {item["next_position"].get<int64_t>()});
  }
}

}  // namespace

void CheckMrope(const GoldenOptions& options, Reporter& reporter) {
  for (const std::string& path : FindFiles(options.dir, ".json")) {
    const auto golden = ReadGoldenCase(path);
    if (!golden.ok() || !golden->json.is_object() || !golden->json.contains("special_ids") ||
        !golden->json.contains("cases") || !golden->json["cases"].is_array()) {
      continue;
    }
    const json& special = golden->json["special_ids"];
    ChatTokens tokens;
    tokens.vision_start = special.value("vision_start", -1);
    tokens.vision_end = special.value("vision_end", -1);
    tokens.image_pad = special.value("image_pad", -1);
    tokens.video_pad = special.value("video_pad", -1);
    tokens.tokens_per_second = golden->json.value("tokens_per_second", 2);
    for (const json& item : golden->json["cases"]) {
      if (!item.is_object() || !item.contains("name") || !item["name"].is_string()) continue;
      CheckTable(*golden, item, tokens, reporter);
    }
  }
}

}  // namespace videonsa::golden
