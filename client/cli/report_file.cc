#include "client/cli/report_file.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/channel.h"
#include "client/format.h"
#include "client/report/ask_html.h"
#include "client/report/thumbnail.h"

namespace videonsa::client {
namespace {

constexpr size_t kPictures = 6;
constexpr int kEvidenceBins = 180;

// The sampled frame next to the middle of the moment: what the model really saw.
absl::Duration FrameOf(const proto::AskResult& result, const WatchedMoment& moment) {
  const absl::Duration middle = (moment.start + moment.end) / 2;
  absl::Duration best = middle;
  absl::Duration distance = absl::InfiniteDuration();
  if (moment.clip_index >= result.visuals_size()) return best;
  for (const auto& time : result.visuals(moment.clip_index).frame_times()) {
    const absl::Duration away = absl::AbsDuration(FromProto(time) - middle);
    if (away < distance) {
      best = FromProto(time);
      distance = away;
    }
  }
  return best;
}

}  // namespace

absl::Status WriteAskReport(const std::string& path, const proto::Question& question,
                            const proto::AskResult& result,
                            const std::vector<VisualSource>& visuals, Console& console) {
  AskPage page{.question = question, .result = result};
  for (const VisualSource& visual : visuals) page.visual_names.push_back(visual.name);
  page.time = absl::FormatTime("%Y-%m-%d %H:%M %Z", absl::Now(), absl::LocalTimeZone());
  for (const WatchedMoment& moment :
       MomentsToShow(BuildEvidence(result, kEvidenceBins), kPictures)) {
    MomentPicture shown{.moment = moment};
    const size_t clip = static_cast<size_t>(std::max(moment.clip_index, 0));
    if (clip < visuals.size() && visuals[clip].kind == VisualSource::Kind::kFile) {
      console.Status(absl::StrCat("picture ", page.moments.size() + 1, " ..."));
      auto jpeg = MakeThumbnail(visuals[clip].name, FrameOf(result, moment));
      if (jpeg.ok()) {
        shown.jpeg = *std::move(jpeg);
      } else {
        page.picture_note = std::string(jpeg.status().message());
      }
    } else {
      page.picture_note = "the clip is not a file on this machine";
    }
    page.moments.push_back(std::move(shown));
  }
  console.ClearStatus();
  if (absl::Status written = WriteFile(path, AskHtml(page)); !written.ok()) return written;
  console.Note(absl::StrCat("report written to ", path));
  return absl::OkStatus();
}

}  // namespace videonsa::client
