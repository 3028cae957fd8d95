#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/media/decoder/input.h"
#include "runtime/media/decoder/wire.h"

struct AVCodec;
struct AVFormatContext;
struct AVPacket;
struct AVStream;

namespace videonsa::decoder {

/// Decoder names that may run; libav's own choice outside this list is refused.
extern const char kAllowedCodecs[];

/// One packet of the chosen stream, as the index pass saw it.
struct PacketInfo {
  int64_t pts;
  int64_t duration;
  bool key;
  bool hidden = false;  ///< decoded but never shown: cut off by an edit list
};

/// An opened container: its chosen stream, and the facts that a full demux pass gives.
///
/// Threads: one at a time.
class Clip {
 public:
  explicit Clip(Input* input) : input_(input) {}
  ~Clip();
  Clip(const Clip&) = delete;
  Clip& operator=(const Clip&) = delete;

  /// Opens, chooses the stream, counts its packets. On failure says why.
  std::optional<ErrorBody> Open(const OpenBody& limits);
  /// Starts reading packets over from the first; the order of packets() again.
  bool Rewind();
  /// Next packet of the chosen stream; false at the end or at damage.
  bool ReadPacket(AVPacket* packet);

  /// Moves to a starting point near `pts`; returns the place of the next packet in packets(), or
  /// -1. Requires: timestamps without repeats. Reading goes on only after Rewind.
  int64_t SeekNear(int64_t pts, bool backward);

  const FactsBody& facts() const { return facts_; }
  AVStream* stream() const { return stream_; }
  const AVCodec* codec() const { return codec_; }
  const std::vector<PacketInfo>& packets() const { return packets_; }
  /// The container marks every point from which decoding may start, and only those.
  bool trusts_key_flags() const { return trusts_key_flags_; }
  bool is_mov() const { return is_mov_; }
  /// Clip time of a timestamp of the stream in microseconds, 0 at the first frame.
  int64_t TimeUs(int64_t pts) const;

 private:
  std::optional<ErrorBody> OpenContainer(const OpenBody& limits);
  std::optional<ErrorBody> ChooseStream(const OpenBody& limits);
  std::optional<ErrorBody> CountPackets(const OpenBody& limits);
  void FillFacts();
  void CloseContainer();

  Input* const input_;
  OpenBody limits_{};
  AVFormatContext* format_ = nullptr;
  AVStream* stream_ = nullptr;
  const AVCodec* codec_ = nullptr;
  std::vector<PacketInfo> packets_;
  int64_t first_pts_ = 0;
  bool trusts_key_flags_ = false;
  bool is_mov_ = false;
  FactsBody facts_{};
};

}  // namespace videonsa::decoder
