#pragma once

#include <cstdint>
#include <type_traits>

/// What the server and videonsa-decoder say to each other over a SOCK_SEQPACKET socket: messages of
/// one fixed size. Pixels travel through a memfd, the clip as a read-only descriptor.
///
/// One job: server Open(+input fd) -> decoder Facts | Error; server Sample(+ring fd) -> decoder
/// Frame* Done | Error, while the server gives slots back by SlotFree; or server Close after Facts.
/// The ring file holds `num_frames` FrameTime records, then from the next page on `num_slots`
/// slots.
namespace videonsa::decoder {

inline constexpr uint32_t kWireMagic = 0x56'4e'53'44;
inline constexpr uint32_t kWireVersion = 1;
inline constexpr uint64_t kPageBytes = 4096;
/// Slack after a frame in its slot: scalers may write a vector past the last row.
inline constexpr uint64_t kSlotSlack = 256;
/// Sockets are handed to the child as this descriptor.
inline constexpr int kChildSocket = 3;

enum class MessageType : uint32_t {
  kHello = 1,  ///< decoder: ready for the first job
  kOpen,       ///< server, with the input descriptor
  kFacts,      ///< decoder
  kSample,     ///< server, with the ring descriptor
  kFrame,      ///< decoder: a slot is filled
  kSlotFree,   ///< server: a slot may be filled again
  kDone,       ///< decoder: all frames sent, ready for the next job
  kError,      ///< decoder: the job failed, ready for the next job
  kClose,      ///< server: no frames wanted
};

enum class MediaKind : uint32_t { kVideo = 1, kImage = 2 };

enum class PixelFormat : uint32_t {
  kRgb24 = 1,   ///< packed rows of `width` pixels, turned upright
  kNative = 2,  ///< the codec's own planes, packed, not turned (for checksums)
};

/// Why a job failed; the closed set that errors are made from.
enum class Failure : uint32_t {
  kContainer = 1,  ///< not a container or picture format we read
  kCodec,          ///< name: the video codec
  kPixelFormat,    ///< a layout of colours that is not converted here
  kAnimation,      ///< a moving picture of a format of which only still ones are read
  kNoVideo,        ///< no video stream
  kEncrypted,
  kEmpty,    ///< zero bytes
  kCorrupt,  ///< value: frames or packets read before the damage
  kNoFrames,
  kPixels,    ///< value, limit
  kDuration,  ///< value, limit in milliseconds
  kPackets,   ///< value, limit
  kStreams,   ///< value, limit
  kMemory,
  kProtocol,  ///< the server asked for the impossible: a bug
};

struct OpenBody {
  MediaKind kind;
  uint32_t threads;
  int64_t max_pixels;
  int64_t max_duration_ms;
  int64_t max_packets;
  uint32_t max_streams;
  int32_t stream;           ///< -1: the container's best
  uint32_t jpeg_again;      ///< picture: encode as JPEG quality 75 and decode again
  uint32_t alpha_on_white;  ///< picture: blend RGBA on white instead of dropping alpha
  uint32_t
      reference_order;  ///< clip: frames as the reference reader finds them, see ReferenceFrames
};

struct FactsBody {
  char container[16];
  char codec[16];
  int32_t width;  ///< upright
  int32_t height;
  int32_t rotation;  ///< degrees clockwise that were applied: 0, 90, 180, 270
  int32_t fps_num;
  int32_t fps_den;
  uint32_t num_streams;
  int64_t num_packets;
  int64_t duration_us;
  uint64_t rgb_bytes;
  uint64_t native_bytes;
};

struct SampleBody {
  uint32_t num_frames;  ///< 0: send nothing but Done
  uint32_t num_slots;   ///< 0: fill in the times only
  uint64_t slot_bytes;
  uint64_t ring_bytes;
  PixelFormat format;
};

/// Record of the ring's table: the server writes `index`, the decoder `time_us`.
struct FrameTime {
  int64_t index;
  int64_t time_us;  ///< since the first frame of the clip
};

struct FrameBody {
  uint32_t sequence;  ///< place in the table
  uint32_t slot;
  uint64_t bytes;
};

struct SlotBody {
  uint32_t slot;
};

struct DoneBody {
  int64_t frames_decoded;
  int64_t frames_converted;
};

struct ErrorBody {
  Failure failure;
  int64_t value;
  int64_t limit;
  char name[16];  ///< kCodec alone
};

struct Message {
  uint32_t magic = kWireMagic;
  MessageType type = MessageType::kHello;
  union {
    OpenBody open;
    FactsBody facts;
    SampleBody sample;
    FrameBody frame;
    SlotBody slot;
    DoneBody done;
    ErrorBody error;
    uint32_t version;
    uint8_t bytes[120];
  };
  Message() : bytes{} {}
};
static_assert(std::is_trivially_copyable_v<Message> && sizeof(Message) == 128);

/// Bytes of a ring: table, then slots from a page border.
inline constexpr uint64_t TableBytes(uint64_t num_frames) {
  return (num_frames * sizeof(FrameTime) + kPageBytes - 1) / kPageBytes * kPageBytes;
}
inline constexpr uint64_t RingBytes(uint64_t num_frames, uint64_t num_slots, uint64_t slot_bytes) {
  return TableBytes(num_frames) + num_slots * slot_bytes;
}

}  // namespace videonsa::decoder
