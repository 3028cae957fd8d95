#pragma once

#include <cstdint>
#include <vector>

#include "runtime/media/decoder/clip.h"

namespace videonsa::decoder {

/// What to do with each packet so that the wanted frames come out exactly, and little else is
/// decoded. Pure: computed from the packet list.
struct DecodePlan {
  enum Action : uint8_t {
    kSkip,       ///< do not decode
    kReference,  ///< decode if others refer to it
    kWanted,     ///< decode and keep
  };
  std::vector<Action> actions;  ///< one a packet, in decode order
  /// Decoding may start afresh before this packet: what came before it was skipped.
  std::vector<bool> restart;
  /// False: timestamps do not name frames; count the decoder's output instead.
  bool by_pts = false;
  /// Presentation order: pts ascending (only if by_pts).
  std::vector<int64_t> sorted_pts;
};

/// Plans for the frames at `wanted` (presentation indices, ascending).
///
/// `trusts_key_flags`: every packet marked key is a point where decoding can start.
DecodePlan MakeDecodePlan(const std::vector<PacketInfo>& packets,
                          const std::vector<int64_t>& wanted, bool trusts_key_flags);

}  // namespace videonsa::decoder
