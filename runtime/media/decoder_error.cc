#include "runtime/media/decoder_error.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

using decoder::Failure;

absl::Status Unsupported(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_UNSUPPORTED", message);
}

absl::Status Corrupt(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_CORRUPT", message);
}

absl::Status TooLarge(absl::string_view what, absl::string_view unit,
                      const decoder::ErrorBody& error) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      ErrorInfo{.reason = "MEDIA_TOO_LARGE",
                .metadata = {{"what", std::string(what)},
                             {"value", absl::StrCat(error.value)},
                             {"limit", absl::StrCat(error.limit)}}},
      absl::StrCat("media has ", error.value, " ", unit, ", the limit is ", error.limit));
}

// The decoder may have been taken over by its clip: what it calls the codec is no more than
// letters.
std::string CodecName(const decoder::ErrorBody& error) {
  std::string name;
  for (char c : error.name) {
    if (c == 0) break;
    name += absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '_';
  }
  return name;
}

}  // namespace

absl::Status ErrorOfFailure(const decoder::ErrorBody& error) {
  switch (error.failure) {
    case Failure::kContainer:
      return Unsupported(
          "not a container or picture format that is read here: MP4, MOV, 3GP, Matroska, WebM, "
          "AVI, MPEG-TS, FLV, GIF; JPEG, PNG, WebP");
    case Failure::kCodec:
      return Unsupported(absl::StrCat("video codec \"", CodecName(error),
                                      "\" is not decoded here: h264, hevc, vp8, vp9, av1, mpeg4, "
                                      "h263, mpeg2video, flv1, gif are"));
    case Failure::kPixelFormat:
      return Unsupported("the layout of its colours is not one that is read here");
    case Failure::kAnimation:
      return Unsupported("an animated WebP; of this format only still pictures are read");
    case Failure::kNoVideo:
      return Unsupported("the file has no video stream");
    case Failure::kEncrypted:
      return Unsupported("the video stream is encrypted");
    case Failure::kEmpty:
      return Corrupt("the file has 0 bytes");
    case Failure::kCorrupt:
      return Corrupt(absl::StrCat("the file is damaged; ", error.value,
                                  " frames or rows could be read before the damage"));
    case Failure::kNoFrames:
      return Corrupt("the video stream gives 0 frames");
    case Failure::kPixels:
      return TooLarge("pixels", "pixels or bytes a picture", error);
    case Failure::kDuration:
      return TooLarge("duration", "ms", error);
    case Failure::kPackets:
      return TooLarge("packets", "video packets or more", error);
    case Failure::kStreams:
      return TooLarge("streams", "streams", error);
    case Failure::kMemory:
      return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_TOO_LARGE",
                       "decoding needs more memory than a decoder process may use");
    case Failure::kProtocol:
      break;
  }
  return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                   absl::StrCat("decoder failure ", static_cast<uint32_t>(error.failure),
                                " with value ", error.value));
}

}  // namespace videonsa
