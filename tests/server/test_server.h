#pragma once

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/grpcpp.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "server/videonsa_server.h"
#include "tests/support/fake_runtime.h"
#include "videonsa/admin/v1/admin.grpc.pb.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/server.grpc.pb.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa {

/// A folder that goes away with its object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = ::testing::TempDir() + "videonsa_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Reason of the one ErrorInfo of `status`; "" without details.
inline std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status wire;
  wire.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  for (const auto& detail : wire.details()) {
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

/// The detail of type T, default-made if there is none.
template <typename T>
T DetailOf(const grpc::Status& status) {
  google::rpc::Status wire;
  wire.ParseFromString(status.error_details());
  T detail;
  for (const auto& any : wire.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  return T();
}

inline v1::Question TextQuestion(const std::string& text) {
  v1::Question question;
  v1::Turn& turn = *question.add_turns();
  turn.set_role(v1::Turn::ROLE_USER);
  turn.add_parts()->set_text(text);
  return question;
}

/// A whole server in this process, around a FakeRuntime, with stubs to call it.
class TestServer {
 public:
  explicit TestServer(const FakeOptions& fake = FakeOptions(), ServerOptions options = Options(),
                      bool serve = true) {
    if (options.clips.dir.empty()) options.clips.dir = folder_.path() + "/clips";
    auto started = VideonsaServer::Start(options, Clock::Real(), metrics_);
    if (!started.ok()) ADD_FAILURE() << started.status();
    server_ = *std::move(started);
    if (serve) Serve(fake);
    channel_ = Connect();
    questions_ = v1::VideoQaService::NewStub(channel_);
    clips_ = v1::ClipService::NewStub(channel_);
    info_ = v1::ServerService::NewStub(channel_);
  }

  static ServerOptions Options() {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.metrics_listen = "";  // its library takes 2 s to stop
    options.clips.free_space_floor = 0;
    return options;
  }

  void Serve(const FakeOptions& fake) {
    auto runtime = std::make_unique<FakeRuntime>(fake, Clock::Real());
    runtime_ = runtime.get();
    server_->Serve(std::move(runtime));
  }

  std::shared_ptr<grpc::Channel> Connect() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                     grpc::InsecureChannelCredentials(), arguments);
  }
  std::shared_ptr<grpc::Channel> ConnectAdmin() const {
    return grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->admin_port()),
                               grpc::InsecureChannelCredentials());
  }

  VideonsaServer& server() { return *server_; }
  FakeRuntime& runtime() { return *runtime_; }
  MetricsRegistry& metrics() { return metrics_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::VideoQaService::Stub& questions() { return *questions_; }
  v1::ClipService::Stub& clips() { return *clips_; }
  v1::ServerService::Stub& info() { return *info_; }

  /// Stops and frees the server.
  void Destroy() { server_.reset(); }

  /// The token that the calls below send; none at first.
  void set_token(const std::string& token) { token_ = token; }
  /// Adds the token to a call made by hand.
  void Authorise(grpc::ClientContext& context) const {
    if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  }

  grpc::Status Ask(const v1::Question& question, v1::AskResult* result,
                   const std::string& request_id = "") {
    grpc::ClientContext context;
    Authorise(context);
    v1::AskRequest request;
    request.set_request_id(request_id);
    *request.mutable_question() = question;
    v1::AskResponse response;
    const grpc::Status status = questions_->Ask(&context, request, &response);
    if (result != nullptr) *result = response.result();
    return status;
  }

  /// Uploads `bytes` in chunks of `chunk` bytes; returns the clip.
  grpc::Status Upload(const std::string& bytes, v1::Clip* clip, size_t chunk = 1 << 20) {
    grpc::ClientContext start_context;
    Authorise(start_context);
    v1::StartUploadRequest start;
    start.set_size_bytes(static_cast<int64_t>(bytes.size()));
    v1::StartUploadResponse started;
    grpc::Status status = clips_->StartUpload(&start_context, start, &started);
    if (!status.ok()) return status;
    grpc::ClientContext context;
    Authorise(context);
    v1::UploadClipResponse response;
    auto writer = clips_->UploadClip(&context, &response);
    v1::UploadClipRequest message;
    message.mutable_header()->set_upload_id(started.upload_id());
    writer->Write(message);
    for (size_t offset = 0; offset < bytes.size(); offset += chunk) {
      v1::UploadChunk& part = *message.mutable_chunk();
      part.set_offset(static_cast<int64_t>(offset));
      part.set_data(bytes.substr(offset, chunk));
      part.set_finish(offset + chunk >= bytes.size());
      if (!writer->Write(message)) break;
    }
    writer->WritesDone();
    status = writer->Finish();
    *clip = response.clip();
    return status;
  }

  /// Watches `name` to its end; returns the last state.
  v1::Clip WaitForClip(const std::string& name) {
    grpc::ClientContext context;
    Authorise(context);
    v1::WatchClipRequest request;
    request.set_name(name);
    auto reader = clips_->WatchClip(&context, request);
    v1::WatchClipResponse response;
    while (reader->Read(&response)) {
    }
    reader->Finish();
    return response.clip();
  }

 private:
  TemporaryFolder folder_;
  std::string token_;
  MetricsRegistry metrics_;
  std::unique_ptr<VideonsaServer> server_;
  FakeRuntime* runtime_ = nullptr;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::VideoQaService::Stub> questions_;
  std::unique_ptr<v1::ClipService::Stub> clips_;
  std::unique_ptr<v1::ServerService::Stub> info_;
};

}  // namespace videonsa
