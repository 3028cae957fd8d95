// Kind "preprocess": frame indices, smart resize tables, and the complete path from a clip or
// picture to patch rows, in both modes.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/resize.h"
#include "runtime/base/error.h"
#include "runtime/media/frame_sampler.h"
#include "runtime/media/smart_resize.h"
#include "tests/golden/checks.h"
#include "tests/golden/media_reader.h"

namespace videonsa::golden {
namespace {

using decoder::PixelFormat;
using nlohmann::json;

std::string HashOf(const void* bytes, size_t count) {
  Digest sha("sha256");
  sha.Update(bytes, count);
  return sha.Finish();
}

template <typename T>
std::optional<T> Optional(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

void CheckIndexCase(const json& c, const char* which, const FrameCountDefaults& defaults,
                    const std::string& name, Reporter& reporter) {
  const json& request = c["request"];
  const auto total = c["total_frames"].get<int64_t>();
  const auto count = CountFrames({.fps = Optional<double>(request, "fps"),
                                  .num_frames = Optional<double>(request, "nframes"),
                                  .min_frames = Optional<int>(request, "min_frames"),
                                  .max_frames = Optional<int>(request, "max_frames")},
                                 total, c["video_fps"].get<double>(), defaults);
  const json& expected = c[absl::StrCat(which, "_nframes")];
  if (!expected.is_number()) {
    reporter.Record(!count.ok(), name, which, count.ok() ? "accepted" : "refused");
    return;
  }
  if (!reporter.ExpectOk(name, which, count.status())) return;
  const std::vector<int64_t> indices = SpreadIndices(0, total - 1, *count);
  const std::vector<int32_t> narrow(indices.begin(), indices.end());
  const std::string hash = HashOf(narrow.data(), narrow.size() * sizeof(int32_t));
  const bool passed = *count == expected.get<int64_t>() &&
                      hash == c[absl::StrCat(which, "_indices_sha256")].get<std::string>();
  reporter.Record(passed, name, which, absl::StrCat(*count, " frames"));
}

void CheckIndices(const json& golden, Reporter& reporter) {
  int number = 0;
  for (const json& c : golden["cases"]) {
    const std::string name = absl::StrCat("frame_indices.", number++);
    CheckIndexCase(c, "released", kLmmsEvalFrames, name, reporter);
    CheckIndexCase(c, "upstream", kQwenVlUtilsFrames, name, reporter);
  }
}

void CheckSmartResize(const json& golden, Reporter& reporter) {
  constexpr SmartResizeRules kRules[] = {SmartResizeRules::kReleased, SmartResizeRules::kUtils,
                                         SmartResizeRules::kTransformers};
  constexpr const char* kNames[] = {"released", "utils", "transformers"};
  int number = 0;
  for (const json& c : golden["cases"]) {
    const std::string name = absl::StrCat("smart_resize.", number++);
    for (int i = 0; i < 3; ++i) {
      const auto size = SmartResize({c[0], c[1]}, {c[2], c[3]}, kRules[i]);
      const json& expected = c[4 + i];
      // A side of 0 is what the reference returns and then fails on; it is refused here.
      const bool refused = !expected.is_array() || expected[0] == 0 || expected[1] == 0;
      const bool passed =
          refused ? !size.ok()
                  : size.ok() && *size == FrameSize{expected[0].get<int>(), expected[1].get<int>()};
      reporter.Record(passed, name, kNames[i],
                      size.ok() ? absl::StrCat(size->height, "x", size->width) : "refused");
    }
  }
}

// Rows of a clip that the reference read through another library: chroma of odd heights is sited
// otherwise there, so that single values are some steps of 255 off, but not many and not far.
void CompareLoosely(const std::string& label, const std::vector<float>& actual,
                    const std::vector<float>& expected, Reporter& reporter) {
  constexpr double kLargest = 8 / 66.6, kMean = 1 / 66.6;
  double largest = actual.size() == expected.size() ? 0 : 1e9, sum = 0;
  for (size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]);
    largest = std::max(largest, error);
    sum += error;
  }
  const double mean = sum / static_cast<double>(std::max<size_t>(actual.size(), 1));
  reporter.Record(largest <= kLargest && mean <= kMean, label, "rows of another reader",
                  absl::StrCat("largest error ", largest, ", mean ", mean));
}

enum class Source { kSame, kDiffers, kOtherReader };

void CheckRows(const GoldenCase& golden, const json& config, const PatchBatch& patches,
               Source source, Reporter& reporter) {
  const auto name = config["name"].get<std::string>();
  const std::string label = golden.name + "." + name;
  reporter.ExpectEqual(label, "grid",
                       std::vector<int64_t>{patches.grid.t, patches.grid.h, patches.grid.w},
                       IntegersOf(config["grid_thw"]));
  if (const GoldenTensor* numbers = golden.Find(name + ".row_numbers")) {
    std::vector<float> rows;
    for (int64_t row : numbers->Integers()) {
      if (row >= patches.grid.num_patches()) break;
      const float* begin = patches.rows.data() + row * kPatchDim;
      rows.insert(rows.end(), begin, begin + kPatchDim);
    }
    if (source == Source::kOtherReader) {
      CompareLoosely(label, rows, golden.Find(name + ".rows")->Floats(), reporter);
    } else {
      reporter.ExpectClose(golden, name + ".rows", rows);
    }
  }
  if (golden.Find(name + ".pixel_values")) {
    reporter.ExpectClose(golden, name + ".pixel_values", patches.rows);
  }
  if (source != Source::kSame) return;
  reporter.ExpectEqualText(label, "pixel_values sha256",
                           HashOf(patches.rows.data(), patches.rows.size() * sizeof(float)),
                           config["pixel_values_fp32_sha256"].get<std::string>());
}

// Source frames and the first resize, as bytes.
struct Frames {
  std::string raw;
  std::vector<uint8_t> resized;  // [T, C, H, W]
};

absl::StatusOr<Frames> ReadFrames(const std::string& path, const json& config) {
  auto reader = MediaReader::Open(path, {.reference_order = true});
  if (!reader.ok()) return reader.status();
  const decoder::FactsBody& facts = (*reader)->facts();
  const int height = config["first_resize"][0], width = config["first_resize"][1];
  BicubicResizer resizer(facts.height, facts.width, height, width);
  Frames frames;
  RgbxImage image;
  const auto times = (*reader)->Read(
      IntegersOf(config["frame_indices"]), PixelFormat::kRgb24, [&](const auto& frame) {
        frames.raw.append(reinterpret_cast<const char*>(frame.pixels), frame.bytes);
        resizer.ResizeRounded(frame.pixels, &image);
        for (int c = 0; c < 3; ++c) {
          for (size_t i = 0; i < image.values.size(); i += 4) {
            frames.resized.push_back(static_cast<uint8_t>(image.values[i + c]));
          }
        }
      });
  if (!times.ok()) return times.status();
  return frames;
}

void CheckVideoConfig(const GoldenCase& golden, const json& config, const std::string& path,
                      MediaLoader& loader, Reporter& reporter) {
  const std::string label = golden.name + "." + config["name"].get<std::string>();
  const json& request = config["request"];
  VideoSampling sampling{.fps = Optional<double>(request, "fps"),
                         .num_frames = Optional<int>(request, "nframes"),
                         .max_frames = Optional<int>(request, "max_frames"),
                         .min_pixels = Optional<int64_t>(request, "min_pixels"),
                         .max_pixels = Optional<int64_t>(request, "max_pixels")};
  sampling.mode =
      config["path"] == "official" ? PreprocessMode::kLmmsEval : PreprocessMode::kQwenVlUtils;
  const char* total =
      golden.json.contains("frames_seen") ? "frames_seen" : "packets_as_counted_by_decord";
  const auto choice = ChooseFrames(sampling, golden.json[total].get<int64_t>(),
                                   golden.json["avg_fps"].get<double>(), 2.0, 768);
  if (!reporter.ExpectOk(label, "choice", choice.status())) return;
  reporter.ExpectEqual(label, "frame_indices", choice->indices,
                       IntegersOf(config["frame_indices"]));
  const auto loaded = loader.LoadVideo(MediaSource{.path = path}, sampling, {});
  if (!reporter.ExpectOk(label, "load", loaded.status())) return;
  const auto frames = ReadFrames(path, config);
  if (!reporter.ExpectOk(label, "frames", frames.status())) return;
  const bool same_source = HashOf(frames->raw.data(), frames->raw.size()) ==
                           config["raw_frames_rgb_sha256"].get<std::string>();
  // A golden whose frames another reader made is compared by its samples only.
  const std::string reader = golden.json.value("reader", "decord");
  const bool other_reader = reader != "decord";
  reporter.Record(same_source || other_reader, label, "raw frames sha256",
                  same_source ? "equal" : "differs, made by another reader");
  if (same_source) {
    reporter.ExpectEqualText(label, "first resize sha256",
                             HashOf(frames->resized.data(), frames->resized.size()),
                             config["first_resize_u8_sha256"].get<std::string>());
  }
  reporter.Record(loaded->second_per_grid == config["second_per_grid_ts"].get<double>(), label,
                  "second_per_grid", absl::StrCat(loaded->second_per_grid));
  const std::vector<double> stamps = config["timestamps_s"].get<std::vector<double>>();
  std::vector<float> expected_times(stamps.begin(), stamps.end()), times;
  for (absl::Duration time : loaded->report.frame_times) {
    times.push_back(static_cast<float>(absl::ToDoubleSeconds(time)));
  }
  if (!stamps.empty()) reporter.ExpectClose(label, "timestamps", times, expected_times);
  CheckRows(golden, config, *loaded->patches,
            same_source    ? Source::kSame
            : other_reader ? Source::kOtherReader
                           : Source::kDiffers,
            reporter);
}

void CheckImageConfig(const GoldenCase& golden, const json& config, const std::string& path,
                      MediaLoader& loader, Reporter& reporter) {
  const std::string label = golden.name + "." + config["name"].get<std::string>();
  ImagePart image{.source = {.path = path},
                  .min_pixels = Optional<int64_t>(config["request"], "min_pixels"),
                  .max_pixels = Optional<int64_t>(config["request"], "max_pixels")};
  image.mode =
      config["path"] == "official" ? PreprocessMode::kLmmsEval : PreprocessMode::kQwenVlUtils;
  const auto loaded = loader.LoadImage(image, {});
  if (!reporter.ExpectOk(label, "load", loaded.status())) return;
  CheckRows(golden, config, *loaded->patches, Source::kSame, reporter);
}

}  // namespace

void CheckPreprocess(const GoldenOptions& options, Reporter& reporter) {
  std::unique_ptr<MediaLoader> loader;
  for (const std::string& path : FindFiles(options.dir, ".json")) {
    const auto golden = ReadGoldenCase(path);
    if (!reporter.ExpectOk(path, "golden", golden.status())) continue;
    if (golden->name == "frame_indices") CheckIndices(golden->json, reporter);
    if (golden->name == "smart_resize") CheckSmartResize(golden->json, reporter);
    const bool clip = golden->json.contains("clip");
    if ((!clip && !golden->json.contains("image")) || !golden->json.contains("configs")) continue;
    if (!loader) {
      auto created = NewLoader();
      if (!reporter.ExpectOk(golden->name, "decoder", created.status())) return;
      loader = *std::move(created);
    }
    const std::string source =
        JoinPath(options.data, golden->json[clip ? "clip" : "image"].get<std::string>());
    for (const json& config : golden->json["configs"]) {
      if (clip) {
        CheckVideoConfig(*golden, config, source, *loader, reporter);
      } else {
        CheckImageConfig(*golden, config, source, *loader, reporter);
      }
    }
  }
}

}  // namespace videonsa::golden
