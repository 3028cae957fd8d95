#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/ask_stream.h"
#include "client/call_options.h"
#include "client/channel.h"
#include "videonsa/admin/v1/admin.grpc.pb.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/server.grpc.pb.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::client {

/// The calls of the protocol as plain functions. Uploads live in `Uploader`.
///
/// Every method returns the server's status with its details (see DetailsOf).
/// Threads: any; the methods block.
class VideoNsaClient {
 public:
  /// Opens two connections (questions, uploads) without waiting for the server.
  /// Errors: those of OpenChannel.
  static absl::StatusOr<std::unique_ptr<VideoNsaClient>> Create(const ChannelOptions& options);
  /// Over given channels, for tests.
  VideoNsaClient(std::shared_ptr<grpc::Channel> questions, std::shared_ptr<grpc::Channel> uploads);

  absl::StatusOr<proto::AskResult> Ask(const proto::AskRequest& request,
                                       const CallOptions& options);
  absl::StatusOr<proto::AskResult> AskStream(const proto::AskStreamRequest& request,
                                             const AskCallbacks& callbacks,
                                             const CallOptions& options);
  /// Asks several questions about the same visuals; `on_answer` is called with each as it comes.
  absl::Status AskMany(const proto::AskManyRequest& request,
                       const std::function<void(const proto::AskManyResponse&)>& on_answer,
                       const CallOptions& options);
  absl::StatusOr<proto::CreateSessionResponse> CreateSession(
      const proto::CreateSessionRequest& request, const CallOptions& options);
  absl::StatusOr<proto::AppendToSessionResponse> AppendToSession(
      const proto::AppendToSessionRequest& request, const CallOptions& options);
  absl::StatusOr<proto::GetSessionResponse> GetSession(const std::string& session,
                                                       const CallOptions& options);
  absl::Status DeleteSession(const std::string& session, const CallOptions& options);
  absl::StatusOr<proto::EstimateResponse> Estimate(const proto::Question& question,
                                                   const CallOptions& options);

  absl::StatusOr<proto::Clip> GetClip(const std::string& name, const CallOptions& options);
  /// All pages, at most `limit` clips (0: all).
  absl::StatusOr<std::vector<proto::Clip>> ListClips(int limit, const CallOptions& options);
  absl::Status DeleteClip(const std::string& name, bool allow_missing, const CallOptions& options);
  absl::StatusOr<proto::Clip> ImportClip(const proto::ImportClipRequest& request,
                                         const CallOptions& options);
  /// Follows a clip until it is READY or FAILED and returns it; `on_change` may be empty. A cut
  /// connection is followed by a new call.
  absl::StatusOr<proto::Clip> WatchClip(const std::string& name,
                                        const std::function<void(const proto::Clip&)>& on_change,
                                        const CallOptions& options);

  absl::StatusOr<proto::ModelInfo> GetModel(const CallOptions& options);
  absl::StatusOr<proto::GetServerStatusResponse> GetServerStatus(const CallOptions& options);
  /// grpc.health.v1 Check: true if SERVING. Errors: NOT_FOUND for an unknown name.
  absl::StatusOr<bool> CheckHealth(const std::string& service, const CallOptions& options);
  /// Admin listener only; returns the requests still running.
  absl::StatusOr<int> Drain(absl::Duration timeout, const CallOptions& options);

  proto::ClipService::StubInterface& upload_stub() { return *upload_stub_; }

 private:
  std::shared_ptr<grpc::Channel> questions_;
  std::unique_ptr<proto::VideoQaService::Stub> qa_;
  std::unique_ptr<proto::ClipService::Stub> clips_;
  std::unique_ptr<proto::ServerService::Stub> server_;
  std::unique_ptr<::videonsa::admin::v1::AdminService::Stub> admin_;
  std::unique_ptr<proto::ClipService::Stub> upload_stub_;
};

}  // namespace videonsa::client
