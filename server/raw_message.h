#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace videonsa {

/// Parses a message that arrived. The services take raw bytes because gRPC answers a message it
/// cannot parse (invalid UTF-8 in a string, for one) with UNIMPLEMENTED and no word.
/// Errors: INVALID_ARGUMENT (MESSAGE_MALFORMED).
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message);

/// Wire form of `message`.
grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message);

}  // namespace videonsa
