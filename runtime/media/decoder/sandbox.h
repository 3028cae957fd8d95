#pragma once

namespace videonsa::decoder {

/// Gives up what decoding does not need, before the first byte of a job is read: limits on memory,
/// descriptors, files and core dumps, no new privileges, not traceable. Called once, with all
/// libraries loaded and no thread started. System call filtering belongs at its end.
void EnterSandbox();

}  // namespace videonsa::decoder
