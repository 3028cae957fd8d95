#include "client/report/timeline.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

constexpr int kShownMoments = 5;
constexpr int kBinCells = 4;  // widest bin on a terminal

// Lengths that people read well, in seconds.
constexpr double kBinSeconds[] = {0.1, 0.2, 0.25, 0.5, 1,   2,   5,   10,  15,
                                  20,  30,  60,   120, 300, 600, 900, 1800};

// `grain` is the shortest block: finer bins would show steps that nobody measured.
absl::Duration BinFor(absl::Duration length, absl::Duration grain, int max_bins) {
  for (const double seconds : kBinSeconds) {
    if (seconds < 1 && absl::Seconds(seconds) < grain) continue;
    // A second is the natural grain; finer only for clips of a few seconds.
    if (seconds < 1 && absl::ToDoubleSeconds(length) > 20) continue;
    if (absl::ToDoubleSeconds(length) / seconds <= max_bins) return absl::Seconds(seconds);
  }
  return absl::Seconds(std::ceil(absl::ToDoubleSeconds(length) / max_bins));
}

struct Span {
  double begin, end, share;
};

// Range that was looked at: the blocks' own, widened to the sampled frames.
std::pair<double, double> ExtentOf(const std::vector<Span>& spans,
                                   const proto::VisualReport* visual) {
  double begin = INFINITY, end = 0;
  for (const Span& span : spans) {
    begin = std::min(begin, span.begin);
    end = std::max(end, span.end);
  }
  if (visual != nullptr && visual->frame_times_size() > 0) {
    begin = std::min(begin, absl::ToDoubleSeconds(FromProto(visual->frame_times(0))));
    end = std::max(
        end, absl::ToDoubleSeconds(FromProto(visual->frame_times(visual->frame_times_size() - 1))));
  }
  return {begin, std::max(end, begin + 0.1)};
}

ClipTimeline TimelineOf(int clip, const std::vector<Span>& spans, const proto::VisualReport* visual,
                        int max_bins) {
  const auto [begin, end] = ExtentOf(spans, visual);
  ClipTimeline line{.clip_index = clip};
  double grain = INFINITY;
  for (const Span& span : spans) {
    if (span.end > span.begin) grain = std::min(grain, span.end - span.begin);
  }
  line.bin = BinFor(absl::Seconds(end - begin), absl::Seconds(std::min(grain, 1.0)), max_bins);
  const double bin = absl::ToDoubleSeconds(line.bin);
  line.start = absl::Seconds(begin);
  line.end = absl::Seconds(end);
  line.share.assign(std::max<int>(1, static_cast<int>(std::ceil((end - begin) / bin - 1e-9))), 0.0);
  const int bins = static_cast<int>(line.share.size());
  for (const Span& span : spans) {
    line.total += span.share;
    const double length = span.end - span.begin;
    const int first = std::clamp(static_cast<int>((span.begin - begin) / bin), 0, bins - 1);
    if (length <= 0) {
      line.share[first] += span.share;
      continue;
    }
    for (int i = first; i < bins; ++i) {
      const double from = std::max(span.begin, begin + i * bin);
      const double to = i == bins - 1 ? span.end : std::min(span.end, begin + (i + 1) * bin);
      if (from >= span.end) break;
      line.share[i] += span.share * std::max(0.0, to - from) / length;
    }
  }
  return line;
}

// Runs of neighbouring bins that hold at least half of what the heaviest bin holds.
void AddRuns(const ClipTimeline& line, std::vector<WatchedMoment>& moments) {
  const double least = *std::max_element(line.share.begin(), line.share.end()) / 2;
  if (least <= 0) return;
  bool open = false;
  for (size_t i = 0; i < line.share.size(); ++i) {
    if (line.share[i] < least) {
      open = false;
      continue;
    }
    const absl::Duration start = line.start + line.bin * static_cast<int64_t>(i);
    if (!open) moments.push_back({line.clip_index, start, start, 0});
    open = true;
    moments.back().end = std::min(start + line.bin, line.end);
    moments.back().share += line.share[i];
  }
}

void AddMoments(const proto::AttentionReport& attention, Evidence& evidence) {
  for (const proto::AttendedInterval& interval : attention.intervals()) {
    evidence.moments.push_back({interval.clip_index(), FromProto(interval.range().start_offset()),
                                FromProto(interval.range().end_offset()), interval.share()});
  }
  if (evidence.moments.empty()) {
    for (const ClipTimeline& line : evidence.clips) AddRuns(line, evidence.moments);
  }
  std::stable_sort(evidence.moments.begin(), evidence.moments.end(),
                   [](const auto& a, const auto& b) { return a.share > b.share; });
}

// Ticks below a timeline whose bins are `width` cells wide.
std::string AxisText(const ClipTimeline& line, int width) {
  constexpr int kTickCells = 12;
  const int bins = static_cast<int>(line.share.size());
  const int step = (kTickCells + width - 1) / width;
  std::string axis;
  int at = 0;
  for (int bin = 0; bin < bins; bin += step) {
    const std::string label = absl::StrCat("╵", ClipTime(line.start + line.bin * bin));
    const int cell = bin * width;
    if (bin > 0 && cell + DisplayWidth(label) > bins * width) break;
    axis.append(cell - at, ' ');
    axis += label;
    at = cell + DisplayWidth(label);
  }
  return axis;
}

// Rows of blocks, top first, `width` cells a bin; the heaviest bin fills them.
std::vector<std::string> Rows(const std::vector<double>& share, double top, int rows, int width) {
  static constexpr const char* kLevels[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<std::string> out(rows);
  for (const double value : share) {
    int level = top > 0 ? static_cast<int>(std::lround(value / top * rows * 8)) : 0;
    if (value > 0) level = std::max(level, 1);
    for (int row = rows - 1; row >= 0; --row) {
      for (int i = 0; i < width; ++i) out[row] += kLevels[std::clamp(level, 0, 8)];
      level -= 8;
    }
  }
  return out;
}

std::string NameOf(const std::vector<std::string>& names, int clip) {
  const bool known = clip >= 0 && clip < static_cast<int>(names.size());
  return absl::StrCat("clip ", clip + 1, known ? absl::StrCat("  ", names[clip]) : "");
}

}  // namespace

Evidence BuildEvidence(const proto::AskResult& result, int max_bins) {
  Evidence evidence;
  std::map<int, std::vector<Span>> by_clip;
  const auto visual_of = [&](int clip) -> const proto::VisualReport* {
    return clip >= 0 && clip < result.visuals_size() ? &result.visuals(clip) : nullptr;
  };
  for (const proto::BlockEvidence& block : result.attention().blocks()) {
    const proto::VisualReport* visual = visual_of(block.clip_index());
    if (block.clip_index() < 0) {
      evidence.text_share += block.share();
    } else if (visual != nullptr && visual->image()) {
      evidence.picture_share += block.share();
    } else {
      by_clip[block.clip_index()].push_back(
          {absl::ToDoubleSeconds(FromProto(block.range().start_offset())),
           absl::ToDoubleSeconds(FromProto(block.range().end_offset())), block.share()});
    }
  }
  for (const auto& [clip, spans] : by_clip) {
    evidence.clips.push_back(TimelineOf(clip, spans, visual_of(clip), max_bins));
  }
  AddMoments(result.attention(), evidence);
  return evidence;
}

std::string TimelineText(const Evidence& evidence, const std::vector<std::string>& clip_names,
                         const Painter& painter, int columns) {
  columns = std::max(columns, 40);
  std::string out = painter.Paint(Style::kBold, "evidence");
  if (evidence.empty()) {
    return absl::StrCat(out, "   none: the server sent none\n");
  }
  absl::StrAppend(&out, "   where the question looked, as share of its attention\n");
  for (const ClipTimeline& line : evidence.clips) {
    const double top = *std::max_element(line.share.begin(), line.share.end());
    absl::StrAppend(
        &out, "  ", Ellipsize(NameOf(clip_names, line.clip_index), columns - 2), "\n  ",
        painter.Paint(Style::kDim, absl::StrCat(Percent(line.total), " of it; a full column is ",
                                                Percent(top), " in ", HumanDuration(line.bin))),
        "\n");
    const int width = std::clamp((columns - 4) / static_cast<int>(line.share.size()), 1, kBinCells);
    for (const std::string& row : Rows(line.share, top, 2, width)) {
      absl::StrAppend(&out, "  ", painter.Paint(Style::kCyan, row), "\n");
    }
    absl::StrAppend(&out, "  ", painter.Paint(Style::kDim, AxisText(line, width)), "\n");
  }
  if (evidence.picture_share > 0) {
    absl::StrAppend(&out, "  pictures  ", Percent(evidence.picture_share), "\n");
  }
  if (evidence.text_share > 0) {
    absl::StrAppend(&out, "  text      ", Percent(evidence.text_share), "\n");
  }
  if (!evidence.moments.empty()) absl::StrAppend(&out, "  most watched\n");
  const double best = evidence.moments.empty() ? 0 : evidence.moments[0].share;
  for (size_t i = 0; i < evidence.moments.size() && i < kShownMoments; ++i) {
    const WatchedMoment& moment = evidence.moments[i];
    absl::StrAppend(
        &out,
        absl::StrFormat("  %2d. clip %d  %9s – %-9s %7s  ", i + 1, moment.clip_index + 1,
                        ClipTime(moment.start), ClipTime(moment.end), Percent(moment.share)),
        painter.Paint(Style::kCyan, Blocks(best > 0 ? moment.share / best : 0, 16)), "\n");
  }
  return out;
}

}  // namespace videonsa::client
