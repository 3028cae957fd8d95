// The client's verbs for sessions and for several questions at once, against a real server and the
// bundled model: what they print is what fresh questions print.
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>

#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

class ClientSessionTest : public ServerTest {
 protected:
  struct Ran {
    int code = -1;
    std::string out;  // without the last line's end
  };
  static Ran Videonsa(const std::string& words) {
    const std::string command = VIDEONSA_BIN_DIR "/videonsa " + words + " --server " +
                                server_->address() + " </dev/null 2>" + scratch_ + "/client.err";
    Ran ran;
    FILE* pipe = popen(command.c_str(), "r");
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) ran.out.append(buffer, n);
    ran.code = WEXITSTATUS(pclose(pipe));
    while (!ran.out.empty() && ran.out.back() == '\n') ran.out.pop_back();
    return ran;
  }
  static std::string Must(const std::string& words) {
    const Ran ran = Videonsa(words);
    EXPECT_EQ(ran.code, 0) << words << "\n" << ReadFile(scratch_ + "/client.err");
    return ran.out;
  }
  static constexpr char kAnswer[] = " --max-tokens 16 --temperature 0";
  static constexpr char kPixels[] = " --max-pixels 50176";
};

TEST_F(ClientSessionTest, CreateAskAppendShowDelete) {
  const std::string water = MediaPath("stream-of-water.mp4");
  const std::string sample = MediaPath("sample_video_only.mp4");
  const std::string question = "ask -q 'What happens in the clip?'";
  const std::string fresh = Must(question + kAnswer + " " + water + kPixels);
  EXPECT_FALSE(fresh.empty());
  const std::string name = Must("session create " + water + kPixels);
  ASSERT_EQ(name.rfind("sessions/", 0), 0u) << name;
  EXPECT_EQ(Must(question + kAnswer + " --session " + name), fresh);
  std::string shown = Must("session show " + name);
  EXPECT_NE(shown.find("clips      1\n"), std::string::npos) << shown;
  EXPECT_NE(shown.find("clips may be appended"), std::string::npos) << shown;
  Must("session append --session " + name + " " + sample + kPixels);
  shown = Must("session show " + name);
  EXPECT_NE(shown.find("clips      2\n"), std::string::npos) << shown;
  Must(question + kAnswer + " --session " + name);
  Must("session delete " + name);
  EXPECT_NE(Videonsa("session show " + name).code, 0);
  EXPECT_NE(Videonsa(question + kAnswer + " --session " + name).code, 0);
  EXPECT_NE(Videonsa("session append --session " + name + " " + sample).code, 0);
  EXPECT_NE(Videonsa("session append " + sample).code, 0);  // no session named
}

TEST_F(ClientSessionTest, SeveralQuestionsAboutOneClipPrintWhatEachPrintsAlone) {
  const std::string clip = MediaPath("stream-of-water.mp4");
  const std::string questions[] = {"What happens?", "Which colour is it?", "Is it day?"};
  std::vector<std::string> alone, lines;
  std::string words = "ask " + clip + kPixels + kAnswer;
  for (const std::string& question : questions) {
    alone.push_back(Must("ask " + clip + kPixels + kAnswer + " -q '" + question + "'"));
    words += " -q '" + question + "'";
  }
  std::istringstream out(Must(words));
  for (std::string line; std::getline(out, line);) lines.push_back(line);
  std::sort(alone.begin(), alone.end());  // answers come as they are ready
  std::sort(lines.begin(), lines.end());
  EXPECT_EQ(lines, alone);
}

}  // namespace
}  // namespace videonsa::testing
