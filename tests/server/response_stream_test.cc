// ResponseStream against a writer that never, late or wrongly finishes its writes.
#include "server/response_stream.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

// Records what the stream asks for; the test decides when a write is done.
class FakeWriter : public ResponseStream::Writer {
 public:
  void Write(const v1::AskStreamResponse& event) override { events.push_back(event); }
  void End(const absl::Status& status) override { ends.push_back(status); }
  void Cut() override { ++cuts; }

  std::vector<v1::AskStreamResponse> events;
  std::vector<absl::Status> ends;
  int cuts = 0;
};

class ResponseStreamTest : public ::testing::Test {
 protected:
  ResponseStreamTest() {
    ServerOptions options = TestServer::Options();
    options.clips.dir = folder_.path() + "/clips";
    options.stream_behind_bytes = 1024;
    options.stream_stall = absl::Seconds(60);
    auto clips = ClipStore::Open(options.clips, clock_, metrics_);
    EXPECT_TRUE(clips.ok()) << clips.status();
    clips_ = *std::move(clips);
    access_ = *AccessControl::Create("", {}, clock_, metrics_);
    core_ = std::make_unique<ServerCore>(options, clock_, metrics_, *access_, *clips_);
    core_->SetRuntime(&runtime_);
    stream_ = std::make_shared<ResponseStream>(*core_, ResponseStream::Question{.ask_id = "ask"},
                                               &writer_);
  }
  static TokenChunk Chunk(const std::string& text, int tokens = 1) {
    TokenChunk chunk;
    chunk.text = text;
    chunk.token_count = tokens;
    return chunk;
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  MetricsRegistry metrics_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<ClipStore> clips_;
  std::unique_ptr<ServerCore> core_;
  FakeRuntime runtime_{FakeOptions(), clock_};
  FakeWriter writer_;
  std::shared_ptr<ResponseStream> stream_;
};

TEST_F(ResponseStreamTest, OneWriteAtATimeAndTextMerges) {
  stream_->OnAccepted(RequestId{1}, 3);
  ASSERT_EQ(writer_.events.size(), 1u);
  EXPECT_EQ(writer_.events[0].accepted().queue_position(), 3);
  stream_->OnProgress("decode", 1, 10);
  stream_->OnProgress("decode", 9, 10);
  stream_->OnPrefill({}, 0, absl::Seconds(1));
  EXPECT_TRUE(stream_->OnChunk(Chunk("a")));
  EXPECT_TRUE(stream_->OnChunk(Chunk("b")));
  EXPECT_TRUE(stream_->OnChunk(Chunk("")));
  EXPECT_EQ(writer_.events.size(), 1u) << "the first write is still in flight";
  stream_->OnWritten(true);
  ASSERT_EQ(writer_.events.size(), 2u);
  EXPECT_TRUE(writer_.events[1].has_prefill()) << "progress that is over is not told";
  stream_->OnWritten(true);
  ASSERT_EQ(writer_.events.size(), 3u);
  EXPECT_EQ(writer_.events[2].delta().text(), "ab");
  EXPECT_EQ(writer_.events[2].delta().token_count(), 3);
  stream_->OnFinish(absl::OkStatus(), GenerateResult());
  EXPECT_TRUE(writer_.ends.empty());
  stream_->OnWritten(true);
  EXPECT_TRUE(writer_.events[3].has_final());
  stream_->OnWritten(true);
  ASSERT_EQ(writer_.ends.size(), 1u);
  EXPECT_TRUE(writer_.ends[0].ok());
}

TEST_F(ResponseStreamTest, ReaderBehindTheLimitEndsOnce) {
  stream_->OnAccepted(RequestId{1}, 0);  // its write never ends
  EXPECT_TRUE(stream_->OnChunk(Chunk(std::string(1024, 'x'))));
  EXPECT_FALSE(stream_->OnChunk(Chunk("y")));
  ASSERT_EQ(writer_.ends.size(), 1u);
  EXPECT_EQ(GetErrorInfo(writer_.ends[0])->reason, "READER_TOO_SLOW");
  EXPECT_FALSE(stream_->OnChunk(Chunk("z")));
  stream_->OnFinish(absl::CancelledError(), GenerateResult());
  stream_->OnWritten(false);
  stream_->Cancel(absl::CancelledError());
  EXPECT_EQ(writer_.ends.size(), 1u);
  EXPECT_EQ(writer_.events.size(), 1u);
}

TEST_F(ResponseStreamTest, StalledWriteIsCut) {
  stream_->OnAccepted(RequestId{1}, 0);
  clock_.Advance(absl::Seconds(59));
  stream_->Check(clock_.Monotonic());
  EXPECT_EQ(writer_.cuts, 0);
  clock_.Advance(absl::Seconds(1));
  stream_->Check(clock_.Monotonic());
  EXPECT_EQ(writer_.cuts, 1);
}

TEST_F(ResponseStreamTest, ErrorComesAfterTheText) {
  stream_->OnChunk(Chunk("a"));
  stream_->OnChunk(Chunk("b"));
  stream_->OnFinish(absl::UnavailableError("gone"), GenerateResult());
  stream_->OnWritten(true);
  ASSERT_EQ(writer_.events.size(), 2u);
  EXPECT_EQ(writer_.events[1].delta().text(), "b");
  EXPECT_TRUE(writer_.ends.empty());
  stream_->OnWritten(true);
  ASSERT_EQ(writer_.ends.size(), 1u);
  EXPECT_EQ(writer_.ends[0].code(), absl::StatusCode::kUnavailable);
}

TEST_F(ResponseStreamTest, NothingIsCalledAfterDetach) {
  stream_->OnAccepted(RequestId{1}, 0);
  stream_->Cancel(absl::CancelledError());
  stream_->Detach();
  EXPECT_FALSE(stream_->OnChunk(Chunk("a")));
  stream_->OnFinish(absl::OkStatus(), GenerateResult());
  stream_->Check(absl::Hours(1));
  EXPECT_EQ(writer_.events.size(), 1u);
  EXPECT_EQ(writer_.ends.size(), 1u);
  EXPECT_EQ(writer_.cuts, 0);
}

TEST_F(ResponseStreamTest, ClipsAreReleasedWhenTheQuestionEnds) {
  auto hold = std::make_shared<int>(0);
  const std::weak_ptr<int> held = hold;
  auto stream = std::make_shared<ResponseStream>(
      *core_, ResponseStream::Question{.ask_id = "ask", .holds = {std::move(hold)}}, &writer_);
  EXPECT_FALSE(held.expired());
  stream->OnFinish(absl::OkStatus(), GenerateResult());
  EXPECT_TRUE(held.expired());
}

}  // namespace
}  // namespace videonsa
