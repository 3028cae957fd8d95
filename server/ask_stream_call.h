#pragma once

#include <memory>

#include "server/ask_setup.h"
#include "server/response_stream.h"
#include "server/streamed_call.h"

namespace videonsa {

/// One AskStream call.
class AskStreamCall : public StreamedCall<v1::AskStreamResponse> {
 public:
  AskStreamCall(ServerCore& core, grpc::CallbackServerContext& context,
                const grpc::ByteBuffer& request);

 private:
  absl::Status Begin(ServerCore& core, const grpc::ByteBuffer& bytes);
  static void Submit(ServerCore& core, PreparedQuestion& prepared,
                     const std::shared_ptr<ResponseStream>& stream);
};

}  // namespace videonsa
