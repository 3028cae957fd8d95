#pragma once

namespace videonsa::decoder {

/// Gives up every system call that decoding does not need, before the first byte of a job is read;
/// limits on memory, descriptors and time are already set by the server (runtime/media/
/// decoder_launch.h). A forbidden call kills the process with SIGSYS; only opening a file and
/// clone3 fail politely, because the C library tries both where it has another way.
/// Called once, with all libraries loaded and no thread started. Returns false if the kernel
/// refuses; the process must then end.
/// Source: the calls that a decoder on a private descriptor was seen to make.
bool EnterSandbox();

}  // namespace videonsa::decoder
