#pragma once

namespace videonsa::decoder {

/// Serves jobs on `socket` one after another until the server closes it or breaks the protocol.
void ServeJobs(int socket);

}  // namespace videonsa::decoder
