#pragma once

namespace videonsa {

/// Makes gRPC and Protocol Buffers write through Log, from now on and for the whole process: both
/// print plain text on stderr otherwise, which readers of JSON lines cannot take. What callers can
/// cause by a malformed message is written at level debug; the answer tells them.
///
/// Threads: before those of gRPC are started.
void RouteLibraryLogs();

}  // namespace videonsa
