#include "client/report/ask_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "client/format.h"
#include "client/report/charts.h"
#include "client/report/html.h"
#include "client/report/thumbnail.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

AskPage SamplePage() {
  AskPage page;
  proto::Turn& turn = *page.question.add_turns();
  turn.set_role(proto::Turn::ROLE_USER);
  turn.add_parts()->set_text("Who <b>wins</b>?");
  page.result = SampleResult();
  page.result.set_text("The <script>alert(1)</script> red team & its \"fans\".");
  page.visual_names = {"a/match.mp4"};
  page.moments = {
      {.moment = {0, absl::Seconds(9), absl::Seconds(11), 0.4}, .jpeg = "\xff\xd8jpeg"}};
  return page;
}

// Every opened tag is closed in order; SVG's and HTML's void tags aside.
std::string Unbalanced(const std::string& html) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)([^>]*)>");
  for (std::sregex_iterator it(html.begin(), html.end(), tag), end; it != end; ++it) {
    const std::string name = (*it)[2];
    const std::string rest = (*it)[3];
    if (name == "meta" || name == "img" || (!rest.empty() && rest.back() == '/')) continue;
    if ((*it)[1] == "") {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "</" + name + "> at " + std::to_string(it->position());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

TEST(AskHtml, TellsEverything) {
  const std::string html = AskHtml(SamplePage());
  for (const char* part :
       {"Who &lt;b&gt;wins&lt;/b&gt;?", "&lt;script&gt;alert(1)", "match.mp4",
        "Most watched moments", "9.0 s – 11.0 s", "data:image/jpeg;base64,", "Where it looked",
        "Attention account", "causal_nsa", "11.5 %", "Gates", "Where the time went", "prefill",
        "Settings", "fake@0123", "prefers-color-scheme:dark", "role=\"img\" aria-label="}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
  EXPECT_EQ(Unbalanced(html), "");
}

TEST(AskHtml, NeedsNoNetworkAndRunsNoScript) {
  const std::string html = AskHtml(SamplePage());
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("http://")));
  EXPECT_THAT(html, Not(HasSubstr("https://")));
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
}

TEST(AskHtml, AnswersWithoutEvidenceSaySo) {
  AskPage page = SamplePage();
  page.result.clear_attention();
  page.moments.clear();
  const std::string html = AskHtml(page);
  EXPECT_THAT(html, HasSubstr("no evidence"));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  EXPECT_EQ(Unbalanced(html), "");
  EXPECT_EQ(Unbalanced(AskHtml(AskPage{})), "");
}

TEST(AskHtml, MissingPicturesAreExplained) {
  AskPage page = SamplePage();
  page.moments[0].jpeg.clear();
  page.picture_note = "the ffmpeg tool is not installed";
  const std::string html = AskHtml(page);
  EXPECT_THAT(html, HasSubstr("the ffmpeg tool is not installed"));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
}

TEST(AskHtml, MomentsShownDoNotOverlap) {
  Evidence evidence;
  evidence.moments = {{0, absl::Seconds(5), absl::Seconds(9), 0.5},
                      {0, absl::Seconds(8), absl::Seconds(10), 0.3},
                      {1, absl::Seconds(5), absl::Seconds(9), 0.1},
                      {0, absl::Seconds(9.5), absl::Seconds(10), 0.06},
                      {0, absl::Seconds(10.5), absl::Seconds(11), 0.05}};
  EXPECT_EQ(MomentsToShow(evidence, 6).size(), 3u);
  EXPECT_EQ(MomentsToShow(evidence, 1).size(), 1u);
}

TEST(Charts, EmptyAndZeroDataGiveValidNumbers) {
  for (const std::string& svg :
       {RowChart("d", {}), RowChart("d", {{"a", 0, "0", 1}}), SegmentChart("d", {{"r", {}, ""}}, 0),
        ColumnChart({.description = "d", .values = {}}),
        ColumnChart({.description = "d", .values = {0, 0}}), LineChart({.description = "d"}),
        LineChart({.description = "d", .lines = {{"l", {{0, 0}}, 1}}})}) {
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
    EXPECT_EQ(Unbalanced(svg), "");
  }
}

TEST(Html, EscapesWhatPagesMustNotSee) {
  EXPECT_EQ(Escaped("<a href='x'>&\"\x01"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;?");
}

TEST(Thumbnail, TheLastFrameHasAPictureToo) {
  // The last frame lies at 2.9697 s; what is reported is rounded up.
  const auto jpeg =
      MakeThumbnail(VIDEONSA_TEST_DATA "/e2e/stream-of-water.mp4", absl::Milliseconds(2970));
  const bool no_tool = absl::IsUnavailable(jpeg.status());
  EXPECT_TRUE(jpeg.ok() || no_tool) << jpeg.status();
}

TEST(Thumbnail, FilesThatAreNoClipsGiveAnError) {
  EXPECT_FALSE(MakeThumbnail("/does/not/exist.mp4", absl::Seconds(1)).ok());
  EXPECT_FALSE(MakeThumbnail("/etc/passwd", absl::Seconds(1)).ok());
}

}  // namespace
}  // namespace videonsa::client
