#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/media/decoder/clip.h"

namespace videonsa::decoder {

/// Whether the reference reader returns other frames than asked for: some picture is shown before a
/// starting point that comes earlier in the file (open picture groups, as x265 makes them) and is
/// lost when decoding starts there, or is hidden by an edit list.
///
/// `shows_leading`: the decoder shows such pictures all the same (all codecs but HEVC).
bool MissesFrames(const std::vector<PacketInfo>& packets, bool shows_leading);

/// What the reference reader meets in a clip.
struct ReferenceReading {
  const std::vector<PacketInfo>& packets;
  const std::vector<int64_t>& sorted_pts;  ///< of all packets, ascending and without repeats
};

/// Moves a demuxer to a starting point near timestamp `pts`; returns the place of the next packet
/// in decode order, or -1.
using SeekDemuxer = std::function<int64_t(int64_t pts, bool backward)>;

/// Presentation indices of the frames that the reference reader (decord 0.6.0) returns for
/// `indices`, ascending.
///
/// It finds starting points by their place in decode order but counts frames in presentation
/// order, and counts hidden pictures, which it never gets. Where that differs, what it returns is
/// some frames off. Models were trained and measured on what it returns, so we return the same.
std::vector<int64_t> ReferenceFrames(const ReferenceReading& clip,
                                     const std::vector<int64_t>& indices, const SeekDemuxer& seek);

}  // namespace videonsa::decoder
