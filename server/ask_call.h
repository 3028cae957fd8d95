#pragma once

#include "server/ask_replay.h"
#include "server/run_call.h"

namespace videonsa {

/// One Ask call.
class AskCall : public RunCall {
 public:
  AskCall(ServerCore& core, AskReplay& replay, grpc::CallbackServerContext& context,
          const grpc::ByteBuffer& request, grpc::ByteBuffer* response);

 private:
  absl::Status Begin(AskReplay& replay, const grpc::ByteBuffer& bytes);
  absl::StatusOr<grpc::ByteBuffer> Answer(const v1::AskResponse& response) override {
    return SerializeMessage(response);
  }
};

}  // namespace videonsa
