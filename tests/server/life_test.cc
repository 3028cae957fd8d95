// The life of a server: health, status, metrics, drain, failure, hardening.
#include <grpcpp/generic/generic_stub.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "tests/server/access_fixture.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;

// grpc.health.v1 Check by hand: the request holds the name as field 1, the reply the state (1 =
// SERVING) as field 1. Returns -1 for NOT_FOUND.
int Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& name) {
  grpc::GenericStub stub(channel);
  std::string wire;
  if (!name.empty())
    wire = absl::StrCat("\x0a", std::string(1, static_cast<char>(name.size())), name);
  grpc::Slice slice(wire);
  grpc::ByteBuffer request(&slice, 1), reply;
  grpc::ClientContext context;
  absl::Notification done;
  grpc::Status status;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request, &reply,
                 [&](grpc::Status result) {
                   status = std::move(result);
                   done.Notify();
                 });
  done.WaitForNotification();
  if (!status.ok()) return -1;
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(reply.Dump(&slices).ok());
  return slices.empty() || slices[0].size() < 2 ? 0 : slices[0].begin()[1];
}
constexpr int kServing = 1;
constexpr int kNotServing = 2;

TEST(Health, FollowsTheState) {
  TestServer server(FakeOptions(), TestServer::Options(), /*serve=*/false);
  const auto admin = server.ConnectAdmin();
  EXPECT_EQ(Health(server.channel(), ""), kNotServing);
  EXPECT_EQ(Health(admin, "readiness"), kNotServing);
  EXPECT_EQ(Health(admin, "liveness"), kServing);
  server.Serve(FakeOptions());
  EXPECT_EQ(Health(server.channel(), ""), kServing);
  EXPECT_EQ(Health(server.channel(), "videonsa.v1.VideoQaService"), kServing);
  EXPECT_EQ(Health(admin, "readiness"), kServing);
  EXPECT_EQ(Health(admin, "nonsense"), -1);
  server.runtime().Break();
  server.server().Tick();
  EXPECT_EQ(Health(admin, "liveness"), kNotServing);
  EXPECT_EQ(Health(admin, "readiness"), kNotServing);
  const grpc::Status status = server.Ask(TextQuestion("Hello?"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "DEVICE_LOST");
}

TEST(ServerService, TellsModelAndState) {
  TestServer server(FakeOptions(), TestServer::Options(), /*serve=*/false);
  grpc::ClientContext loading_context;
  v1::GetModelResponse model;
  EXPECT_EQ(ReasonOf(server.info().GetModel(&loading_context, v1::GetModelRequest(), &model)),
            "LOADING");
  grpc::ClientContext early_context;
  v1::GetServerStatusResponse status;
  ASSERT_TRUE(
      server.info().GetServerStatus(&early_context, v1::GetServerStatusRequest(), &status).ok());
  EXPECT_EQ(status.state(), v1::GetServerStatusResponse::STATE_LOADING);
  server.Serve(FakeOptions());
  grpc::ClientContext model_context, status_context;
  ASSERT_TRUE(server.info().GetModel(&model_context, v1::GetModelRequest(), &model).ok());
  EXPECT_EQ(model.model().name(), "fake");
  EXPECT_EQ(model.model().attention_semantics(), "dense");
  EXPECT_EQ(model.model().limits().max_frames(), 768);
  EXPECT_TRUE(model.model().random_weights());
  ASSERT_TRUE(
      server.info().GetServerStatus(&status_context, v1::GetServerStatusRequest(), &status).ok());
  EXPECT_EQ(status.state(), v1::GetServerStatusResponse::STATE_READY);
  EXPECT_EQ(status.kv_pages_total(), 100);
  EXPECT_GT(status.resident_bytes(), 1 << 20);
  EXPECT_EQ(status.devices(0).kind(), "cpu");
}

TEST(Metrics, CountCallsAndQuestions) {
  TestServer server;
  ASSERT_TRUE(server.Ask(TextQuestion("One?"), nullptr).ok());
  EXPECT_FALSE(server.Ask(TextQuestion("refuse"), nullptr).ok());
  EXPECT_FALSE(server.Ask(TextQuestion("fail:ABORTED"), nullptr).ok());
  v1::Clip clip;
  ASSERT_TRUE(server.Upload("video", &clip).ok());
  server.WaitForClip(clip.name());
  while (server.server().core().calls.open_questions() > 0) std::this_thread::yield();
  const std::string text = server.metrics().Text();
  for (const char* line :
       {"grpc_server_call_started_total{grpc_method=\"videonsa.v1.VideoQaService/Ask\"} 3",
        "videonsa_grpc_calls_active{grpc_method=\"videonsa.v1.VideoQaService/Ask\"} 0",
        "grpc_server_call_duration_seconds_count{grpc_method=\"videonsa.v1.VideoQaService/"
        "Ask\",grpc_status=\"OK\"} 1",
        "videonsa_requests_total{finish_reason=\"length\"} 1",
        "videonsa_requests_total{finish_reason=\"error\"} 1",
        "videonsa_requests_total{finish_reason=\"drain\"} 0",
        "videonsa_admission_rejections_total{reason=\"queue_full\"} 1",
        "videonsa_output_tokens_total 16", "videonsa_attention_pairs_total{branch=\"dense\"} 110",
        "videonsa_attention_dense_pairs_total 110",
        "videonsa_attention_mode_total{mode=\"dense\"} 1",
        "videonsa_request_duration_seconds_count 1",
        "videonsa_uploads_total{outcome=\"complete\"} 1", "videonsa_upload_bytes_total 5",
        "videonsa_clips{state=\"ready\"} 1", "videonsa_server_state{state=\"ready\"} 1",
        "videonsa_server_state{state=\"loading\"} 0", "videonsa_model_info{",
        "process_resident_memory_bytes "}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_FALSE(absl::StrContains(text, clip.name())) << "no clip in a label";
}

TEST(Drain, LetsRunningQuestionsEnd) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext context;
  v1::AskStreamRequest request;
  *request.mutable_question() = TextQuestion("Long?");
  auto reader = server.questions().AskStream(&context, request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  absl::Notification drained;
  int cut = -1;
  std::thread drainer([&] {
    cut = server.server().Drain(absl::ZeroDuration(), absl::Seconds(60));
    drained.Notify();
  });
  while (server.server().core().state() != ServerState::kDraining) std::this_thread::yield();
  EXPECT_FALSE(drained.HasBeenNotified());
  server.runtime().Step(16);
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(event.final().finish_reason(), v1::AskResult::FINISH_REASON_LENGTH);
  drainer.join();
  EXPECT_EQ(cut, 0);
}

TEST(Drain, EndsTheRestWithWhatItHas) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext context;
  v1::AskStreamRequest request;
  *request.mutable_question() = TextQuestion("Endless?");
  auto reader = server.questions().AskStream(&context, request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  server.runtime().Step(3);
  // An open upload and a health watch must not hold the drain up.
  grpc::ClientContext upload_context;
  v1::UploadClipResponse response;
  auto upload = server.clips().UploadClip(&upload_context, &response);
  EXPECT_EQ(server.server().Drain(absl::ZeroDuration(), absl::Milliseconds(200)), 1);
  std::string text;
  while (reader->Read(&event)) text += event.delta().text();
  EXPECT_TRUE(reader->Finish().ok()) << "the partial answer is an answer";
  EXPECT_EQ(event.final().finish_reason(), v1::AskResult::FINISH_REASON_DRAIN);
  EXPECT_EQ(text.size(), 15u);
  EXPECT_FALSE(upload->Finish().ok());
}

TEST(Drain, SecondSignalHurries) {
  FakeOptions fake;
  TestServer server(fake);
  absl::Notification hurry;
  hurry.Notify();
  // An hour of grace, which the hurry ends at once.
  EXPECT_EQ(server.server().Drain(absl::Hours(1), absl::Seconds(10), &hurry), 0);
}

TEST(Drain, AdminCallRefusesNewQuestionsAndWaits) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext ask_context;
  v1::AskStreamRequest request;
  *request.mutable_question() = TextQuestion("silent");
  auto reader = server.questions().AskStream(&ask_context, request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  auto admin = admin::v1::AdminService::NewStub(server.ConnectAdmin());
  grpc::ClientContext context;
  admin::v1::DrainRequest drain;
  drain.mutable_timeout()->set_nanos(50'000'000);
  admin::v1::DrainResponse drained;
  ASSERT_TRUE(admin->Drain(&context, drain, &drained).ok());
  EXPECT_EQ(drained.remaining(), 1) << "it still runs";
  const grpc::Status status = server.Ask(TextQuestion("Late?"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "DRAINING");
  ask_context.TryCancel();
  while (reader->Read(&event)) {
  }
  reader->Finish();
}

TEST(Admin, IsNotOnThePublicListener) {
  TestServer server;
  auto admin = admin::v1::AdminService::NewStub(server.channel());
  grpc::ClientContext context;
  admin::v1::DrainResponse response;
  EXPECT_EQ(admin->Drain(&context, admin::v1::DrainRequest(), &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST(Admin, MayBeAUnixSocket) {
  const TemporaryFolder folder;
  ServerOptions options = TestServer::Options();
  options.admin_listen = "unix:" + folder.path() + "/admin";
  TestServer server(FakeOptions(), options);
  auto admin = admin::v1::AdminService::NewStub(
      grpc::CreateChannel(options.admin_listen, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  admin::v1::SetLogLevelRequest request;
  request.set_level("info");
  admin::v1::SetLogLevelResponse response;
  EXPECT_TRUE(admin->SetLogLevel(&context, request, &response).ok());
}

// What a kubelet needs, and nobody can do anything else with.
TEST(Health, HasAListenerOfItsOwn) {
  ServerOptions options = TestServer::Options();
  options.health_listen = "127.0.0.1:0";
  options.reflection = "true";
  TestServer server(FakeOptions(), options, /*serve=*/false);
  const auto channel =
      grpc::CreateChannel("127.0.0.1:" + std::to_string(server.server().health_port()),
                          grpc::InsecureChannelCredentials());
  EXPECT_EQ(Health(channel, "readiness"), kNotServing);
  EXPECT_EQ(Health(channel, "liveness"), kServing);
  server.Serve(FakeOptions());
  EXPECT_EQ(Health(channel, "readiness"), kServing);
  for (const char* method :
       {"/videonsa.v1.ServerService/GetModel", "/videonsa.admin.v1.AdminService/Drain",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
    EXPECT_EQ(RawCall::Run(channel, method).error_code(), grpc::StatusCode::UNIMPLEMENTED)
        << method;
  }
  server.server().BeginDrain();
  EXPECT_EQ(Health(channel, "readiness"), kNotServing);
  EXPECT_EQ(Health(channel, "liveness"), kServing);
}

TEST(Admin, SetsTheLogLevel) {
  TestServer server;
  auto admin = admin::v1::AdminService::NewStub(server.ConnectAdmin());
  admin::v1::SetLogLevelRequest request;
  admin::v1::SetLogLevelResponse response;
  request.set_level("error");
  grpc::ClientContext context, back_context, bad_context;
  ASSERT_TRUE(admin->SetLogLevel(&context, request, &response).ok());
  EXPECT_EQ(response.previous_level(), "info");
  request.set_level("info");
  ASSERT_TRUE(admin->SetLogLevel(&back_context, request, &response).ok());
  EXPECT_EQ(response.previous_level(), "error");
  request.set_level("loud");
  EXPECT_EQ(ReasonOf(admin->SetLogLevel(&bad_context, request, &response)), "FIELD_INVALID");
}

TEST(Listen, PortInUseIsAnError) {
  TestServer server;
  TemporaryFolder folder;
  ServerOptions options = TestServer::Options();
  options.clips.dir = folder.path() + "/clips";
  options.listen = absl::StrCat("127.0.0.1:", server.server().port());
  MetricsRegistry metrics;
  const auto second = VideonsaServer::Start(options, Clock::Real(), metrics);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetErrorInfo(second.status())->reason, "ADDRESS_IN_USE");
}

TEST(Shutdown, WithOpenCallsDoesNotHang) {
  FakeOptions fake;
  fake.manual = true;
  auto server = std::make_unique<TestServer>(fake);
  grpc::ClientContext context;
  v1::AskStreamRequest request;
  *request.mutable_question() = TextQuestion("silent");
  auto reader = server->questions().AskStream(&context, request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  server->Destroy();
  while (reader->Read(&event)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace videonsa
