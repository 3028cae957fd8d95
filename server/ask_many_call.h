#pragma once

#include "server/ask_many_run.h"
#include "server/streamed_call.h"

namespace videonsa {

/// One AskMany call.
class AskManyCall : public StreamedCall<v1::AskManyResponse> {
 public:
  AskManyCall(ServerCore& core, grpc::CallbackServerContext& context,
              const grpc::ByteBuffer& request);

 private:
  absl::Status Begin(ServerCore& core, const grpc::ByteBuffer& bytes);
};

}  // namespace videonsa
