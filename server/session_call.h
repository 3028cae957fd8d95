#pragma once

#include <functional>
#include <string>

#include "server/ask_replay.h"
#include "server/run_call.h"

namespace videonsa {

/// A call that prefills what a session begins with or goes on with: CreateSession and
/// AppendToSession.
class SessionCall : public RunCall {
 public:
  static SessionCall* Create(ServerCore& core, AskReplay& replay,
                             grpc::CallbackServerContext& context, const grpc::ByteBuffer& request,
                             grpc::ByteBuffer* response);
  static SessionCall* Append(ServerCore& core, grpc::CallbackServerContext& context,
                             const grpc::ByteBuffer& request, grpc::ByteBuffer* response);

 private:
  using RunCall::RunCall;
  absl::Status BeginCreate(AskReplay& replay, const grpc::ByteBuffer& bytes);
  absl::Status BeginAppend(const grpc::ByteBuffer& bytes);
  absl::StatusOr<grpc::ByteBuffer> Answer(const v1::AskResponse& response) override;

  std::string session_;  // "sessions/{id}"
  /// Makes the answer to the caller from the session as it is now.
  std::function<grpc::ByteBuffer(const v1::GetSessionResponse& session)> answer_;
};

}  // namespace videonsa
