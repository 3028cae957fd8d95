#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace videonsa {

/// What a decoder process may use.
struct DecoderLimits {
  int64_t memory_bytes = int64_t{2} << 30;  ///< address space
  int64_t cpu_seconds = 600;                ///< of all its threads
  int niceness = 0;                         ///< added to this process's own
};

/// Starts `binary` with `socket` as descriptor 3, an empty environment and nothing else of this
/// process open, and with less power than any program it could turn out to be needs to do harm:
///  - memory, processor time, descriptors, file size and core dumps are limited;
///  - no new privileges; no process, socket, trace, signal to others, mount, namespace, ...: such
///    calls fail with EPERM (seccomp);
///  - files are opened for reading only, and only the program, its loader and the system's library
///    folders (Landlock, where the kernel has it; see HasFileSandbox).
/// The decoder itself then gives up all but decoding (decoder/sandbox.h).
///
/// Errors: FAILED_PRECONDITION (DECODER_NOT_STARTED) with the step and errno.
/// Threads: any; safe in a process with threads.
absl::StatusOr<pid_t> LaunchDecoder(const std::string& binary, int socket,
                                    const DecoderLimits& limits);

/// Whether this kernel can keep a decoder from opening files before it has locked itself in.
bool HasFileSandbox();

}  // namespace videonsa
