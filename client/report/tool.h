#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace videonsa::client {

/// Runs a program of the PATH without a shell and returns what it wrote to its standard output.
///
/// Errors: UNAVAILABLE if it is not installed; DEADLINE_EXCEEDED after `patience` (it is ended);
///         RESOURCE_EXHAUSTED beyond `max_bytes`; INTERNAL with its exit code if that is not 0.
absl::StatusOr<std::string> RunTool(const std::vector<std::string>& words, size_t max_bytes,
                                    absl::Duration patience);

}  // namespace videonsa::client
