#pragma once

#include "runtime/media/decoder/wire.h"

namespace videonsa::decoder {

enum class ReceiveResult { kMessage, kClosed, kInvalid };

/// Sends `message`, with descriptor `fd` unless it is -1; waits for room. False if the other side
/// is gone.
bool SendMessage(int socket, const Message& message, int fd = -1);

/// Waits for the next message. `*fd` gets the descriptor that came with it, or -1; surplus
/// descriptors are closed. kInvalid: wrong size or magic.
ReceiveResult ReceiveMessage(int socket, Message* message, int* fd);

}  // namespace videonsa::decoder
