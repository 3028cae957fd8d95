#include "client/report/thumbnail.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/report/tool.h"

namespace videonsa::client {
namespace {

constexpr size_t kMaxBytes = 4 << 20;
constexpr absl::Duration kPatience = absl::Seconds(15);

}  // namespace

absl::StatusOr<std::string> MakeThumbnail(const std::string& path, absl::Duration at) {
  const std::string time = absl::StrFormat("%.3f", absl::ToDoubleSeconds(at));
  const std::vector<std::string> words = {
      "ffmpeg",     "-v",    "quiet", "-nostdin", "-protocol_whitelist",
      "file,pipe",  "-ss",   time,    "-i",       absl::StrCat("file:", path),
      "-frames:v",  "1",     "-an",   "-vf",      "scale=320:-2",
      "-c:v",       "mjpeg", "-q:v",  "4",        "-f",
      "image2pipe", "pipe:1"};
  absl::StatusOr<std::string> jpeg = RunTool(words, kMaxBytes, kPatience);
  if (absl::IsUnavailable(jpeg.status())) return jpeg;
  if (!jpeg.ok() || !absl::StartsWith(*jpeg, "\xff\xd8")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ffmpeg tool gave no picture of ", path, " at ", time, " s"));
  }
  return jpeg;
}

}  // namespace videonsa::client
