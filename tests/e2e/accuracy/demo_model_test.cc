// The bundled model through the real server on encoded clips: agreement with the training code's
// logits, a fixed part of the accuracy table, and input that makes no sense.
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/match.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/server/e2e_fixture.h"
#include "tests/support/model/model_folder.h"

namespace videonsa::testing {
namespace {

using nlohmann::json;

const char kGoldens[] = VIDEONSA_SOURCE_DIR "/deploy/demo_model/goldens/";
const char kFixedPart[] = VIDEONSA_ACCURACY_DATA "/";
const char kWeights[] = VIDEONSA_SOURCE_DIR "/deploy/demo_model/weights";

// The fp32 rows of a safetensors file by name.
std::map<std::string, std::vector<float>> ReadFloats(const std::string& path) {
  const std::string bytes = ReadFile(path);
  std::map<std::string, std::vector<float>> out;
  uint64_t header = 0;
  if (bytes.size() < sizeof(header)) return out;
  memcpy(&header, bytes.data(), sizeof(header));
  const json tensors = json::parse(bytes.substr(8, header));
  for (const auto& [name, entry] : tensors.items()) {
    if (name == "__metadata__" || entry["dtype"] != "F32") continue;
    const uint64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    out[name].resize((end - begin) / sizeof(float));
    memcpy(out[name].data(), bytes.data() + 8 + header + begin, end - begin);
  }
  return out;
}

// ln of the softmax.
std::vector<double> LogProbabilities(const std::vector<float>& logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  std::vector<double> out;
  for (const float x : logits) out.push_back(x - top - std::log(sum));
  return out;
}

class DemoModelTest : public ServerTest {
 protected:
  static void SetUpTestSuite() {
    ServerTest::SetUpTestSuite();
    server_.reset();
    StartServer({"--compute-type", "fp32"});  // the same numbers on every machine
  }

  static void AddVisuals(const json& item, const json& visuals, const std::string& folder,
                         pb::Turn& turn) {
    for (const json& visual : visuals) {
      const std::string bytes = ReadFile(folder + visual["file"].get<std::string>());
      ASSERT_FALSE(bytes.empty()) << visual["file"];
      const json& sampling = item["sampling"];
      if (visual["kind"] == "image") {
        pb::ImageInput* image = turn.add_parts()->mutable_image();
        image->set_inline_data(bytes);
        image->set_min_pixels(sampling["min_pixels_per_frame"]);
        image->set_max_pixels(sampling["max_pixels_per_frame"]);
        continue;
      }
      pb::ClipInput* clip = turn.add_parts()->mutable_clip();
      clip->set_inline_data(bytes);
      clip->mutable_sampling()->set_fps(sampling["fps"]);
      clip->mutable_sampling()->set_min_pixels_per_frame(sampling["min_pixels_per_frame"]);
      clip->mutable_sampling()->set_max_pixels_per_frame(sampling["max_pixels_per_frame"]);
    }
  }

  // The item as a question up to its last turn, with the visuals of another item if wanted.
  // Earlier answers: `turns[i][answer_key]`.
  static pb::Question QuestionOf(const json& item, const json& visuals, const std::string& folder,
                                 const char* answer_key) {
    pb::Question question;
    const json& turns = item["turns"];
    for (size_t i = 0; i < turns.size(); ++i) {
      pb::Turn* turn = question.add_turns();
      turn->set_role(pb::Turn::ROLE_USER);
      if (i == 0) AddVisuals(item, visuals, folder, *turn);
      turn->add_parts()->set_text(turns[i]["q"].get<std::string>());
      if (i + 1 == turns.size()) break;
      turn = question.add_turns();
      turn->set_role(pb::Turn::ROLE_ASSISTANT);
      turn->add_parts()->set_text(turns[i][answer_key].get<std::string>());
    }
    question.mutable_generation()->set_temperature(0);
    return question;
  }

  static std::string Answer(const pb::Question& question) {
    pb::AskResult result;
    const grpc::Status status = Ask(question, &result);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return result.text();
  }
};

TEST_F(DemoModelTest, LogitsAgreeWithTheTrainingCode) {
  const json goldens = json::parse(ReadFile(std::string(kGoldens) + "goldens.json"));
  const auto tensors = ReadFloats(std::string(kGoldens) + "goldens.safetensors");
  ASSERT_EQ(goldens["items"].size(), 10u);
  for (size_t i = 0; i < goldens["items"].size(); ++i) {
    const json& item = goldens["items"][i];
    const auto logits = tensors.find(absl::StrCat(i, ".logits"));
    ASSERT_NE(logits, tensors.end());
    const std::vector<double> expected = LogProbabilities(logits->second);
    pb::Question question = QuestionOf(item, item["visuals"], kGoldens, "a");
    question.mutable_generation()->set_top_logprobs(20);
    pb::AskResult result;
    const grpc::Status status = Ask(question, &result);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(result.text(), item["answer"].get<std::string>()) << i;
    ASSERT_GE(result.logprobs_size(), 1);
    ASSERT_EQ(result.logprobs(0).alternatives_size(), 20);
    for (const pb::TokenLogprob& token : result.logprobs(0).alternatives()) {
      EXPECT_NEAR(token.logprob(), expected[token.token_id()], 1e-3)
          << "clip " << i << ", token " << token.token_id();
    }
  }
}

// Two clips of every type. The committed weights answer kRight of the 34; make accuracy measures
// them on hundreds of new clips.
constexpr int kRight = 31;
constexpr int kRightWithAnotherClip = 10;

TEST_F(DemoModelTest, AnswersTheFixedPart) {
  const json all = json::parse(ReadFile(std::string(kFixedPart) + "questions.json"));
  const json& items = all["items"];
  ASSERT_EQ(items.size(), 34u);
  int right = 0, right_blind = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const json& other = items[(i + 17) % items.size()];  // the other clip of the type
    ASSERT_EQ(items[i]["type"], other["type"]);
    const std::string expected = items[i]["turns"].back()["a"];
    const std::string got = Answer(QuestionOf(items[i], items[i]["visuals"], kFixedPart, "a"));
    right += got == expected;
    right_blind += Answer(QuestionOf(items[i], other["visuals"], kFixedPart, "a")) == expected;
    if (got != expected) {
      printf("%s: %s | %s, right is %s\n", items[i]["type"].get<std::string>().c_str(),
             items[i]["turns"].back()["q"].get<std::string>().c_str(), got.c_str(),
             expected.c_str());
    }
  }
  printf("%d of 34 right, %d with the clip of another question\n", right, right_blind);
  EXPECT_GE(right, kRight - 1);  // another processor may round one near-tie the other way
  EXPECT_LE(right_blind, kRightWithAnotherClip);
}

TEST_F(DemoModelTest, AnswersEndWhateverIsAsked) {
  const std::string noise = ReadFile(std::string(kFixedPart) + "noise.mp4");
  ASSERT_FALSE(noise.empty());
  for (const char* text : {"What color is the circle?", "Welche Farbe hat der Kreis?",
                           "\xE4\xBB\x80\xE4\xB9\x88\xE9\xA2\x9C\xE8\x89\xB2\xEF\xBC\x9F", "?"}) {
    pb::Question question = ClipQuestion(noise, text);
    question.mutable_generation()->clear_max_output_tokens();  // the model's own limit holds
    pb::AskResult result;
    const grpc::Status status = Ask(question, &result);
    EXPECT_TRUE(status.ok()) << text << ": " << status.error_message();
    EXPECT_LE(result.usage().output_tokens(), 32) << text;
    EXPECT_NE(result.finish_reason(), pb::AskResult::FINISH_REASON_UNSPECIFIED) << text;
  }
}

TEST_F(DemoModelTest, AnEmptyQuestionIsAnsweredOrRefused) {
  const std::string noise = ReadFile(std::string(kFixedPart) + "noise.mp4");
  for (const char* text : {"", " "}) {
    pb::AskResult result;
    const grpc::Status status = Ask(ClipQuestion(noise, text), &result);
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::INVALID_ARGUMENT)
        << status.error_message();
  }
}

// A copy of the weights in which one file is changed.
class DamagedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& entry : std::filesystem::directory_iterator(kWeights)) {
      std::filesystem::copy_file(entry.path(), Path(entry.path().filename()));
    }
  }
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
  }
  // What the server says when it does not start with the folder; it must end by itself, with
  // code 3.
  std::string Refusal() const {
    const test::TemporaryFolder clips;
    const std::string command = absl::StrCat(
        "timeout 60 " VIDEONSA_BIN_DIR "/videonsa-server --listen 127.0.0.1:0 --model ",
        folder_.path(), " --clip-dir ", clips.path(),
        " --metrics-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 2>&1");
    FILE* const pipe = popen(command.c_str(), "r");
    std::string out;
    char buffer[4096];
    for (size_t got; (got = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) out.append(buffer, got);
    const int status = pclose(pipe);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3) << status << ": " << out;
    return out;
  }
  const test::TemporaryFolder folder_;
};

TEST_F(DamagedModelTest, ACutShardIsNamed) {
  const std::string shard = "model-00002-of-00003.safetensors";
  Write(shard, ReadFile(Path(shard)).substr(0, 1 << 20));
  const std::string refusal = Refusal();
  EXPECT_TRUE(absl::StrContains(refusal, shard)) << refusal;
}

TEST_F(DamagedModelTest, AMissingShardIsNamed) {
  std::filesystem::remove(Path("model-00003-of-00003.safetensors"));
  const std::string refusal = Refusal();
  EXPECT_TRUE(absl::StrContains(refusal, "model-00003-of-00003.safetensors")) << refusal;
}

TEST_F(DamagedModelTest, ATokenizerThatDoesNotFitIsRefused) {
  json config = json::parse(ReadFile(Path("config.json")));
  json tokenizer = json::parse(ReadFile(Path("tokenizer.json")));
  const int vocab = config["vocab_size"];
  for (json& added : tokenizer["added_tokens"]) added["id"] = added["id"].get<int>() + vocab;
  Write("tokenizer.json", tokenizer.dump());
  const std::string refusal = Refusal();
  EXPECT_TRUE(absl::StrContains(refusal, "token")) << refusal;
}

}  // namespace
}  // namespace videonsa::testing
