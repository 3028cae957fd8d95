#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/style.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// Selection weight of one clip over its time.
struct ClipTimeline {
  int clip_index = 0;
  absl::Duration start;
  absl::Duration end;
  /// Length of a bin: a whole number of seconds, or a part of one that divides it.
  absl::Duration bin;
  /// Share of all selection weight, by bin; sums to `total`.
  std::vector<double> share;
  double total = 0;
};

/// A stretch that was looked at, best first.
struct WatchedMoment {
  int clip_index = 0;
  absl::Duration start;
  absl::Duration end;
  double share = 0;
};

/// What the evidence of an answer says.
struct Evidence {
  std::vector<ClipTimeline> clips;  ///< by clip index; pictures are left out
  std::vector<WatchedMoment> moments;
  double text_share = 0;  ///< weight on blocks that hold no visual
  double picture_share = 0;
  bool empty() const { return clips.empty() && moments.empty(); }
};

/// Spreads the blocks' weight evenly over their time ranges into at most `max_bins` bins a clip,
/// and lists the watched moments: the server's intervals or, if it sent none, runs of bins that
/// hold at least half of what the heaviest bin holds.
///
/// Requires: max_bins > 0.
Evidence BuildEvidence(const proto::AskResult& result, int max_bins);

/// The timelines for a terminal: two rows of blocks a clip, an axis, the most watched moments.
///
/// Units: columns of the terminal; at least 40 are used.
std::string TimelineText(const Evidence& evidence, const std::vector<std::string>& clip_names,
                         const Painter& painter, int columns);

}  // namespace videonsa::client
