#include "client/cli/synthetic.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/channel.h"
#include "client/report/tool.h"

namespace videonsa::client {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr int kRate = 8;  // frames a second: enough for every sampling that a load asks for

bool ParsePositive(const std::string& text, int most, int& out) {
  return absl::SimpleAtoi(text, &out) && out > 0 && out <= most;
}

bool ParseField(const std::string& key, const std::string& value, SyntheticSpec& spec) {
  if (key == "frames") return ParsePositive(value, 100'000, spec.frames);
  if (key == "question_tokens") return ParsePositive(value, 100'000, spec.question_tokens);
  if (key == "output_tokens") return ParsePositive(value, 1'000'000, spec.output_tokens);
  if (key == "seconds") {
    return absl::SimpleAtod(value, &spec.seconds) && spec.seconds > 0 && spec.seconds <= 86'400;
  }
  if (key == "ignore_eos") {
    spec.ignore_eos = value == "1";
    return value == "0" || value == "1";
  }
  if (key == "size") {
    const std::pair<std::string, std::string> size = absl::StrSplit(value, absl::MaxSplits('x', 1));
    return ParsePositive(size.first, 8192, spec.width) &&
           ParsePositive(size.second, 8192, spec.height);
  }
  return false;
}

}  // namespace

absl::StatusOr<SyntheticSpec> ParseSynthetic(const std::string& text) {
  SyntheticSpec spec;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (!ParseField(pair.first, pair.second, spec)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--synthetic: \"", part, "\" is not understood; write frames=16,size=448x448,seconds=8,",
          "question_tokens=32,output_tokens=64,ignore_eos=1"));
    }
  }
  return spec;
}

absl::StatusOr<std::string> MakeClip(const SyntheticSpec& spec, int number) {
  // The MP4 muxer wants a file that it can go back in.
  std::error_code ignored;
  std::string folder = (std::filesystem::temp_directory_path(ignored) / "videonsa-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return absl::UnavailableError("no temporary folder");
  const std::string path = absl::StrCat(folder, "/clip.mp4");
  // Even sizes, as the encoder wants them; hue and start differ by clip.
  const std::string source = absl::StrFormat(
      "testsrc2=size=%dx%d:rate=%d:duration=%.3f,hue=h=%d", std::max(spec.width & ~1, 2),
      std::max(spec.height & ~1, 2), kRate, spec.seconds, number * 37 % 360);
  const std::string comment = absl::StrCat("comment=", number);
  const auto ran =
      RunTool({"ffmpeg", "-v", "quiet", "-nostdin", "-f", "lavfi", "-i", source, "-c:v", "libx264",
               "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-metadata", comment, "-y", path},
              1 << 20, kPatience);
  absl::StatusOr<std::string> bytes = ran.ok() ? ReadFile(path) : ran;
  std::filesystem::remove_all(folder, ignored);
  return bytes;
}

std::string MakeQuestion(int tokens, int number) {
  static constexpr const char* kWords[] = {"what",  "happens", "in",   "this",  "part", "of",
                                           "the",   "clip",    "when", "the",   "next", "pattern",
                                           "moves", "over",    "a",    "field", "and",  "why"};
  std::mt19937 random(static_cast<uint32_t>(number) + 1);
  std::string text = "Say";
  for (int i = 2; i < tokens; ++i)
    absl::StrAppend(&text, " ", kWords[random() % std::size(kWords)]);
  return text + "?";
}

}  // namespace videonsa::client
