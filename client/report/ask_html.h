#pragma once

#include <string>
#include <vector>

#include "client/report/timeline.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// A watched moment with its picture.
struct MomentPicture {
  WatchedMoment moment;
  std::string jpeg;  ///< empty: none
};

/// What the page tells.
struct AskPage {
  proto::Question question;  ///< as asked; bytes of inline clips are not needed
  proto::AskResult result;
  std::vector<std::string> visual_names;
  std::vector<MomentPicture> moments;
  std::string picture_note;  ///< why pictures are missing; empty if they are not
  std::string time;          ///< when it was asked, for people
};

/// One self-contained page about an answer: the answer, pictures of the most watched moments, the
/// timeline, the attention account, phase times, settings.
std::string AskHtml(const AskPage& page);

/// The moments that the page shows, best first: at most `count`, each at least a second and a
/// twentieth of its clip away from the others, so that the pictures differ.
std::vector<WatchedMoment> MomentsToShow(const Evidence& evidence, size_t count);

}  // namespace videonsa::client
