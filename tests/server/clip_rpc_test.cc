// Clips over real gRPC, in process.
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/hash.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;

TEST(Clips, UploadWatchAskListDelete) {
  TestServer server;
  v1::Clip clip;
  const std::string bytes(3 << 20, 'v');
  ASSERT_TRUE(server.Upload(bytes, &clip).ok());
  EXPECT_EQ(clip.size_bytes(), 3 << 20);
  clip = server.WaitForClip(clip.name());
  ASSERT_EQ(clip.state(), v1::Clip::STATE_READY);
  EXPECT_EQ(clip.media().codec(), "h264");
  EXPECT_EQ(clip.media().duration().seconds(), 10);

  v1::Question question = TextQuestion("What is in it?");
  question.mutable_turns(0)->add_parts()->mutable_clip()->set_clip(clip.name());
  v1::AskResult result;
  ASSERT_TRUE(server.Ask(question, &result).ok());
  const GenerateRequest asked = server.runtime().last_request();
  const auto& video = std::get<VideoPart>(asked.turns[0].parts[1]);
  EXPECT_EQ(video.source.sha256, Sha256Of(bytes));

  grpc::ClientContext list_context;
  v1::ListClipsResponse list;
  ASSERT_TRUE(server.clips().ListClips(&list_context, v1::ListClipsRequest(), &list).ok());
  ASSERT_EQ(list.clips_size(), 1);
  EXPECT_EQ(list.clips(0).name(), clip.name());

  grpc::ClientContext delete_context, again_context, missing_context;
  v1::DeleteClipRequest remove;
  remove.set_name(clip.name());
  v1::DeleteClipResponse removed;
  ASSERT_TRUE(server.clips().DeleteClip(&delete_context, remove, &removed).ok());
  const grpc::Status again = server.clips().DeleteClip(&again_context, remove, &removed);
  EXPECT_EQ(again.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailOf<google::rpc::ResourceInfo>(again).resource_type(), "clip");
  remove.set_allow_missing(true);
  EXPECT_TRUE(server.clips().DeleteClip(&missing_context, remove, &removed).ok());
  const grpc::Status gone = server.Ask(question, nullptr);
  EXPECT_EQ(gone.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(gone), "CLIP_NOT_FOUND");
}

TEST(Clips, DamagedClipFailsWithItsReason) {
  TestServer server;
  v1::Clip clip;
  ASSERT_TRUE(server.Upload("bad clip", &clip).ok());
  clip = server.WaitForClip(clip.name());
  EXPECT_EQ(clip.state(), v1::Clip::STATE_FAILED);
  EXPECT_EQ(clip.error_reason(), "MEDIA_CORRUPT");
  v1::Question question = TextQuestion("What?");
  question.mutable_turns(0)->add_parts()->mutable_clip()->set_clip(clip.name());
  const grpc::Status status = server.Ask(question, nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "CLIP_FAILED");
}

TEST(Clips, DecoderThatKeepsDyingFailsTheClip) {
  TestServer server;
  v1::Clip clip;
  ASSERT_TRUE(server.Upload("die, decoder", &clip).ok());
  clip = server.WaitForClip(clip.name());
  EXPECT_EQ(clip.error_reason(), "DECODER_DIED");
}

TEST(Clips, UnfinishedClipIsNotReady) {
  TestServer server;
  grpc::ClientContext context;
  v1::StartUploadRequest start;
  start.set_size_bytes(10);
  v1::StartUploadResponse started;
  ASSERT_TRUE(server.clips().StartUpload(&context, start, &started).ok());
  v1::Question question = TextQuestion("What?");
  question.mutable_turns(0)->add_parts()->mutable_clip()->set_clip(started.clip().name());
  const grpc::Status status = server.Ask(question, nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "CLIP_NOT_READY");
  EXPECT_GT(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 0);
}

// Writes `messages` into one upload stream and returns its end.
grpc::Status Stream(TestServer& server, const std::vector<v1::UploadClipRequest>& messages,
                    v1::UploadClipResponse* response = nullptr) {
  grpc::ClientContext context;
  v1::UploadClipResponse local;
  auto writer = server.clips().UploadClip(&context, response != nullptr ? response : &local);
  for (const v1::UploadClipRequest& message : messages) {
    if (!writer->Write(message)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

v1::UploadClipRequest Header(const std::string& upload_id, int64_t offset) {
  v1::UploadClipRequest message;
  message.mutable_header()->set_upload_id(upload_id);
  message.mutable_header()->set_write_offset(offset);
  return message;
}

v1::UploadClipRequest Chunk(int64_t offset, const std::string& data, bool finish = false) {
  v1::UploadClipRequest message;
  message.mutable_chunk()->set_offset(offset);
  message.mutable_chunk()->set_data(data);
  message.mutable_chunk()->set_finish(finish);
  return message;
}

TEST(Upload, WrongStreamsAreTypedErrors) {
  TestServer server;
  grpc::ClientContext context;
  v1::StartUploadRequest start;
  start.set_size_bytes(10);
  v1::StartUploadResponse started;
  ASSERT_TRUE(server.clips().StartUpload(&context, start, &started).ok());
  const std::string& id = started.upload_id();
  EXPECT_EQ(ReasonOf(Stream(server, {})), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Stream(server, {v1::UploadClipRequest()})), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Stream(server, {Chunk(0, "x")})), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Stream(server, {Header(id, 0), Header(id, 0)})), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Stream(server, {Header("nobody", 0)})), "UPLOAD_NOT_FOUND");
  const grpc::Status offset = Stream(server, {Header(id, 7)});
  EXPECT_EQ(offset.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(offset).metadata().at("committed_size"), "0");
  v1::UploadClipRequest corrupt = Chunk(0, "01234");
  corrupt.mutable_chunk()->set_crc32c(1);
  EXPECT_EQ(Stream(server, {Header(id, 0), corrupt}).error_code(), grpc::StatusCode::DATA_LOSS);
  v1::UploadClipResponse response;
  ASSERT_TRUE(Stream(server, {Header(id, 0), Chunk(0, "01234")}, &response).ok());
  EXPECT_EQ(response.committed_size(), 5);
  EXPECT_FALSE(response.complete());
  const grpc::Status after =
      Stream(server, {Header(id, 5), Chunk(5, "56789", true), Chunk(10, "beyond")}, &response);
  EXPECT_TRUE(after.ok()) << "what follows the finish is not read: " << after.error_message();
  EXPECT_TRUE(response.complete());
}

TEST(Upload, IdleSenderIsCutOffAndMayResume) {
  ServerOptions options = TestServer::Options();
  options.upload_idle = absl::ZeroDuration();  // any wait for a message is too long
  TestServer server(FakeOptions(), options);
  grpc::ClientContext start_context;
  v1::StartUploadRequest start;
  start.set_size_bytes(10);
  v1::StartUploadResponse started;
  ASSERT_TRUE(server.clips().StartUpload(&start_context, start, &started).ok());
  grpc::ClientContext context;
  v1::UploadClipResponse response;
  auto writer = server.clips().UploadClip(&context, &response);
  ASSERT_TRUE(writer->Write(Header(started.upload_id(), 0)));
  ASSERT_TRUE(writer->Write(Chunk(0, "01234")));
  int64_t committed = 0;
  while (committed < 5) {
    grpc::ClientContext query_context;
    v1::QueryUploadRequest query;
    query.set_upload_id(started.upload_id());
    v1::QueryUploadResponse state;
    ASSERT_TRUE(server.clips().QueryUpload(&query_context, query, &state).ok());
    committed = state.committed_size();
  }
  server.server().Tick();
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonOf(status), "UPLOAD_TOO_SLOW");
  EXPECT_TRUE(
      Stream(server, {Header(started.upload_id(), 5), Chunk(5, "56789", true)}, &response).ok());
  EXPECT_TRUE(response.complete());
}

TEST(Upload, ImportIsOff) {
  TestServer server;
  grpc::ClientContext context;
  v1::ImportClipResponse response;
  const grpc::Status status =
      server.clips().ImportClip(&context, v1::ImportClipRequest(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ReasonOf(status), "FEATURE_OFF");
}

TEST(Watch, EndsWhenTheClipIsDeletedOrTheServerDrains) {
  TestServer server;
  grpc::ClientContext start_context;
  v1::StartUploadRequest start;
  start.set_size_bytes(10);
  v1::StartUploadResponse started;
  ASSERT_TRUE(server.clips().StartUpload(&start_context, start, &started).ok());
  v1::WatchClipRequest request;
  request.set_name(started.clip().name());
  grpc::ClientContext context;
  auto reader = server.clips().WatchClip(&context, request);
  v1::WatchClipResponse event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.clip().state(), v1::Clip::STATE_UPLOADING);
  server.server().BeginDrain();
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(ReasonOf(reader->Finish()), "DRAINING");
  grpc::ClientContext none_context;
  request.set_name("clips/none");
  auto none = server.clips().WatchClip(&none_context, request);
  EXPECT_FALSE(none->Read(&event));
  EXPECT_EQ(none->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace videonsa
