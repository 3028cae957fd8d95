// Kind "media": decoded frames, stream facts and pictures against files whose names say what they
// are about: CLIP.framemd5, CLIP.streamN.frameNNNNNN.rgb (or CLIP/streamN...),
// video-properties.tsv, image-properties.tsv, streamN.all_frames_info.json,
// patch-means.PICTURE.tsv.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/base/error.h"
#include "runtime/base/hash.h"
#include "tests/golden/checks.h"
#include "tests/golden/media_reader.h"

namespace videonsa::golden {
namespace {

namespace fs = std::filesystem;
using decoder::MediaKind;
using decoder::PixelFormat;

constexpr double kPatchMeanTolerance = 0.008;
constexpr int64_t kTimeToleranceUs = 1;

std::vector<std::string> Lines(const std::string& path) {
  auto text = ReadFile(path);
  if (!text.ok()) return {};
  std::vector<std::string> lines = absl::StrSplit(*text, '\n');
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}

std::string Reason(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : "";
}

bool IsMediaError(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument &&
         absl::StartsWith(Reason(status), "MEDIA_");
}

// The clip of `data`/video whose name is `stem` plus an extension.
std::string FindClip(const GoldenOptions& options, const std::string& stem) {
  const fs::path folder = JoinPath(options.data, "video");
  if (!fs::is_directory(folder)) return "";
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().stem() == stem) return entry.path().string();
  }
  return "";
}

// Every decoded frame in the codec's own format, by MD5. The decoder fills places of packets that
// give no frame with a neighbour; such repeats are left out of the comparison.
void CheckFrameMd5(const GoldenOptions& options, const std::string& path, Reporter& reporter) {
  const std::string clip = fs::path(path).stem().string();
  std::vector<std::string> expected;
  for (const std::string& line : Lines(path)) {
    if (line.empty() || line[0] == '#') continue;
    expected.push_back(line.substr(line.rfind(' ') + 1));
  }
  auto reader = MediaReader::Open(JoinPath(options.data, "video/" + clip), {});
  if (!reporter.ExpectOk(clip, "open", reader.status())) return;
  std::vector<std::string> actual;
  const auto times = (*reader)->Read(AllIndices((*reader)->facts().num_packets),
                                     PixelFormat::kNative, [&](const auto& frame) {
                                       Digest md5("md5");
                                       md5.Update(frame.pixels, frame.bytes);
                                       actual.push_back(md5.Finish());
                                     });
  if (!reporter.ExpectOk(clip, "decode", times.status())) return;
  size_t matched = 0, repeats = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (matched < expected.size() && actual[i] == expected[matched]) {
      ++matched;
    } else if (i > 0 && actual[i] == actual[i - 1]) {
      ++repeats;
    } else {
      break;
    }
  }
  const bool passed = matched == expected.size() && matched + repeats == actual.size();
  reporter.Record(passed, clip, "frame md5",
                  absl::StrCat(matched, " of ", expected.size(), " equal, ", repeats, " repeats"));
}

// NAME.streamN.frameNNNNNN.rgb or NAME/streamN.frameNNNNNN.rgb.
void CheckRgbFrame(const GoldenOptions& options, const std::string& path, Reporter& reporter) {
  const fs::path file(path);
  const std::vector<std::string> parts = absl::StrSplit(file.filename().string(), '.');
  const bool nested = absl::StartsWith(parts[0], "stream");
  const std::string stem = nested ? file.parent_path().filename().string() : parts[0];
  int stream = -1;
  int64_t index = -1;
  for (absl::string_view part : parts) {
    if (absl::ConsumePrefix(&part, "stream")) (void)absl::SimpleAtoi(part, &stream);
    if (absl::ConsumePrefix(&part, "frame")) (void)absl::SimpleAtoi(part, &index);
  }
  const std::string name = absl::StrCat(stem, ".stream", stream, ".frame", index);
  auto expected = ReadFile(path);
  if (!reporter.ExpectOk(name, "golden", expected.status())) return;
  auto reader = MediaReader::Open(FindClip(options, stem), {.stream = stream});
  if (!reporter.ExpectOk(name, "open", reader.status())) return;
  std::string actual;
  const auto times = (*reader)->Read({index}, PixelFormat::kRgb24, [&](const auto& frame) {
    actual.assign(reinterpret_cast<const char*>(frame.pixels), frame.bytes);
  });
  if (!reporter.ExpectOk(name, "decode", times.status())) return;
  int worst = actual.size() == expected->size() ? 0 : 256;
  for (size_t i = 0; i < std::min(actual.size(), expected->size()); ++i) {
    worst = std::max(
        worst, std::abs(static_cast<uint8_t>(actual[i]) - static_cast<uint8_t>((*expected)[i])));
  }
  reporter.Record(worst == 0, name, "rgb",
                  absl::StrCat(actual.size(), " bytes, largest error ", worst));
}

// streamN.all_frames_info.json below a folder named as the clip: the time of every frame.
void CheckFrameTimes(const GoldenOptions& options, const std::string& path, Reporter& reporter) {
  const fs::path file(path);
  const std::string file_name = file.filename().string();
  absl::string_view name = file_name;
  int stream = -1;
  absl::ConsumePrefix(&name, "stream");
  (void)absl::SimpleAtoi(name.substr(0, name.find('.')), &stream);
  const std::string stem = file.parent_path().filename().string();
  const std::string label = absl::StrCat(stem, ".stream", stream);
  auto golden = ReadJson(path);
  if (!reporter.ExpectOk(label, "golden", golden.status())) return;
  auto reader = MediaReader::Open(FindClip(options, stem), {.stream = stream});
  if (!reporter.ExpectOk(label, "open", reader.status())) return;
  const auto times = (*reader)->Read(AllIndices((*reader)->facts().num_packets),
                                     PixelFormat::kRgb24, [](const auto&) {});
  if (!reporter.ExpectOk(label, "decode", times.status())) return;
  bool equal = times->size() == golden->size();
  for (size_t i = 0; equal && i < times->size(); ++i) {
    double seconds = 0;
    (void)absl::SimpleAtod((*golden)[i]["pts_time"].get<std::string>(), &seconds);
    const int64_t micros = std::llround(seconds * 1e6);
    equal = std::llabs(micros - absl::ToInt64Microseconds((*times)[i])) <= kTimeToleranceUs;
  }
  reporter.Record(equal, label, "frame times", absl::StrCat(times->size(), " frames"));
}

using Row = std::map<std::string, std::string>;

std::vector<Row> ReadTable(const std::string& path) {
  std::vector<Row> rows;
  std::vector<std::string> names;
  for (const std::string& line : Lines(path)) {
    const std::vector<std::string> fields = absl::StrSplit(line, '\t');
    if (names.empty()) {
      names = fields;
      continue;
    }
    Row& row = rows.emplace_back();
    for (size_t i = 0; i < names.size(); ++i) row[names[i]] = i < fields.size() ? fields[i] : "";
  }
  return rows;
}

void CheckClipFacts(const Row& row, const std::string& clip, const decoder::FactsBody& facts,
                    Reporter& reporter) {
  const bool turned = facts.rotation % 180 != 0;
  const std::string actual =
      absl::StrCat(facts.container, " ", facts.codec, " ", turned ? facts.height : facts.width, "x",
                   turned ? facts.width : facts.height, " ", facts.fps_num, "/",
                   facts.fps_num == 0 ? 0 : facts.fps_den, " ", facts.num_packets, " packets");
  const std::string container =
      std::vector<std::string>(absl::StrSplit(row.at("container"), ','))[0];
  const std::string expected = absl::StrCat(
      container, " ", row.at("codec_name"), " ", row.at("width"), "x", row.at("height"), " ",
      row.at("avg_frame_rate"), " ", row.at("packets"), " packets");
  reporter.ExpectEqualText(clip, "facts", actual, expected);
}

void CheckClipTable(const GoldenOptions& options, const std::string& path, Reporter& reporter) {
  auto loader = NewLoader();
  if (!reporter.ExpectOk("video-properties", "decoder", loader.status())) return;
  for (const Row& row : ReadTable(path)) {
    const std::string& clip = row.at("file");
    const std::string file = JoinPath(options.data, clip);
    if (!absl::StartsWith(clip, "video-bad/")) {
      auto reader = MediaReader::Open(file, {});
      if (reporter.ExpectOk(clip, "open", reader.status())) {
        CheckClipFacts(row, clip, (*reader)->facts(), reporter);
      }
      continue;
    }
    const auto loaded = (*loader)->LoadVideo(MediaSource{.path = file}, {}, {});
    // Two of the damaged clips decode without a fault.
    const bool harmless = loaded.ok() && row.at("ffmpeg_exit") == "0" &&
                          row.at("decoded_frames") != "0" && row.at("decoded_frames") != "";
    reporter.Record(harmless || IsMediaError(loaded.status()), clip, "refusal",
                    loaded.ok() ? "decodes" : Reason(loaded.status()));
  }
}

void CheckPictureTable(const GoldenOptions& options, const std::string& path, Reporter& reporter) {
  for (const Row& row : ReadTable(path)) {
    const std::string& picture = row.at("file");
    auto reader = MediaReader::Open(JoinPath(options.data, picture), {.kind = MediaKind::kImage});
    // GIF and BMP pictures are not offered: refused like damaged ones.
    const bool offered = row.at("format") != "GIF" && row.at("format") != "BMP";
    if (row.at("load") != "ok" || !offered) {
      reporter.Record(IsMediaError(reader.status()), picture, "refusal",
                      reader.ok() ? "decodes" : Reason(reader.status()));
      continue;
    }
    if (!reporter.ExpectOk(picture, "open", reader.status())) continue;
    Digest sha("sha256");
    const auto times = (*reader)->Read({0}, PixelFormat::kRgb24, [&](const auto& frame) {
      sha.Update(frame.pixels, frame.bytes);
    });
    if (!reporter.ExpectOk(picture, "decode", times.status())) continue;
    reporter.ExpectEqualText(picture, "rgb sha256", sha.Finish(), row.at("rgb_sha256"));
  }
}

// patch-means.NAME.tsv: mean of every patch and channel of image/NAME.jpg at its own size.
void CheckPatchMeans(const GoldenOptions& options, const std::string& path, Reporter& reporter) {
  const std::string name =
      std::string(absl::StripPrefix(fs::path(path).stem().string(), "patch-means."));
  auto loader = NewLoader();
  if (!reporter.ExpectOk(name, "decoder", loader.status())) return;
  ImagePart image{.source = {.path = JoinPath(options.data, "image/" + name + ".jpg")},
                  .mode = PreprocessMode::kQwenVlUtils};
  const auto loaded = (*loader)->LoadImage(image, {});
  if (!reporter.ExpectOk(name, "load", loaded.status())) return;
  double worst = 0;
  int64_t rows = 0;
  for (const std::string& line : Lines(path)) {
    const std::vector<std::string> fields = absl::StrSplit(line, '\t');
    int64_t patch;
    if (!absl::SimpleAtoi(fields[0], &patch) || patch >= loaded->grid.num_patches()) continue;
    ++rows;
    for (int c = 0; c < 3; ++c) {
      double sum = 0, expected = 0;
      for (int i = 0; i < kPatchDim / 3; ++i) {
        sum += loaded->patches->rows[patch * kPatchDim + c * (kPatchDim / 3) + i];
      }
      (void)absl::SimpleAtod(fields[c + 1], &expected);
      worst = std::max(worst, std::abs(sum / (kPatchDim / 3) - expected));
    }
  }
  reporter.Record(rows == loaded->grid.num_patches() && worst <= kPatchMeanTolerance, name,
                  "patch means", absl::StrCat(rows, " patches, largest error ", worst));
}

}  // namespace

void CheckMedia(const GoldenOptions& options, Reporter& reporter) {
  const auto each = [&](const char* suffix, auto check) {
    for (const std::string& path : FindFiles(options.dir, suffix)) check(options, path, reporter);
  };
  each(".framemd5", CheckFrameMd5);
  each(".rgb", CheckRgbFrame);
  each(".all_frames_info.json", CheckFrameTimes);
  each("video-properties.tsv", CheckClipTable);
  each("image-properties.tsv", CheckPictureTable);
  for (const std::string& path : FindFiles(options.dir, ".tsv")) {
    if (absl::StartsWith(fs::path(path).filename().string(), "patch-means.")) {
      CheckPatchMeans(options, path, reporter);
    }
  }
}

}  // namespace videonsa::golden
