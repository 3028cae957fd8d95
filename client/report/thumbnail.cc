#include "client/report/thumbnail.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/report/tool.h"

namespace videonsa::client {
namespace {

constexpr size_t kMaxBytes = 4 << 20;
constexpr absl::Duration kPatience = absl::Seconds(15);

// The tool shows the first frame at or behind a time; a frame's own time, rounded, may lie behind
// it.
constexpr absl::Duration kEarlier[] = {absl::Milliseconds(2), absl::Milliseconds(500)};

absl::StatusOr<std::string> FrameFrom(const std::string& path, absl::Duration at) {
  const std::string time = absl::StrFormat("%.3f", std::max(absl::ToDoubleSeconds(at), 0.0));
  const std::vector<std::string> words = {
      "ffmpeg",     "-v",    "quiet", "-nostdin", "-protocol_whitelist",
      "file,pipe",  "-ss",   time,    "-i",       absl::StrCat("file:", path),
      "-frames:v",  "1",     "-an",   "-vf",      "scale=320:-2",
      "-c:v",       "mjpeg", "-q:v",  "4",        "-f",
      "image2pipe", "pipe:1"};
  return RunTool(words, kMaxBytes, kPatience);
}

}  // namespace

absl::StatusOr<std::string> MakeThumbnail(const std::string& path, absl::Duration at) {
  for (const absl::Duration earlier : kEarlier) {
    absl::StatusOr<std::string> jpeg = FrameFrom(path, at - earlier);
    if (absl::IsUnavailable(jpeg.status())) return jpeg;
    if (jpeg.ok() && absl::StartsWith(*jpeg, "\xff\xd8")) return jpeg;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the ffmpeg tool gave no picture of ", path, " at ",
                   absl::StrFormat("%.3f", absl::ToDoubleSeconds(at)), " s"));
}

}  // namespace videonsa::client
