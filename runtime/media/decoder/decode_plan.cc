#include "runtime/media/decoder/decode_plan.h"

#include <algorithm>
#include <numeric>

extern "C" {
#include <libavutil/avutil.h>
}

namespace videonsa::decoder {
namespace {

// Leaving out fewer packets than this is not worth emptying the decoder's pipeline.
constexpr size_t kWorthARestart = 8;

bool NamesFrames(const std::vector<int64_t>& sorted_pts) {
  if (sorted_pts.front() == AV_NOPTS_VALUE) return false;
  return std::adjacent_find(sorted_pts.begin(), sorted_pts.end()) == sorted_pts.end();
}

// Packets that come after the last one needed before the next starting point.
void SkipTails(const std::vector<PacketInfo>& packets, DecodePlan* plan) {
  const size_t count = packets.size();
  size_t end = count;        // end of the stretch that the current starting point begins
  bool tail_needed = false;  // pictures of the next stretch refer back into this one
  for (size_t start = count; start-- > 0;) {
    if (!packets[start].key) continue;
    size_t last = start;  // one past the last packet needed of [start, end)
    for (size_t i = start; i < end; ++i) {
      if (plan->actions[i] == DecodePlan::kWanted) last = i + 1;
    }
    if (tail_needed) last = end;
    if (last == start || end - last >= kWorthARestart) {
      std::fill(plan->actions.begin() + last, plan->actions.begin() + end, DecodePlan::kSkip);
      if (last < end && end < count) plan->restart[end] = true;
    }
    tail_needed = false;
    for (size_t i = start; i < end && last > start; ++i) {
      const bool leading = packets[i].pts < packets[start].pts;
      if (leading && plan->actions[i] == DecodePlan::kWanted) tail_needed = true;
    }
    end = start;
  }
}

}  // namespace

DecodePlan MakeDecodePlan(const std::vector<PacketInfo>& packets,
                          const std::vector<int64_t>& wanted, bool trusts_key_flags) {
  DecodePlan plan;
  plan.actions.assign(packets.size(), DecodePlan::kWanted);
  plan.restart.assign(packets.size(), false);
  for (const PacketInfo& packet : packets) plan.sorted_pts.push_back(packet.pts);
  std::sort(plan.sorted_pts.begin(), plan.sorted_pts.end());
  plan.by_pts = NamesFrames(plan.sorted_pts);
  if (!plan.by_pts) return plan;
  std::vector<int64_t> wanted_pts;
  for (int64_t index : wanted) wanted_pts.push_back(plan.sorted_pts[index]);
  for (size_t i = 0; i < packets.size(); ++i) {
    const bool keep = std::binary_search(wanted_pts.begin(), wanted_pts.end(), packets[i].pts);
    plan.actions[i] = keep ? DecodePlan::kWanted : DecodePlan::kReference;
  }
  if (trusts_key_flags && packets.front().key) SkipTails(packets, &plan);
  return plan;
}

}  // namespace videonsa::decoder
