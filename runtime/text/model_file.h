#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace videonsa {

/// Whether `dir` holds a regular file called `file`.
bool HasModelFile(const std::string& dir, const std::string& file);

/// Reads a file of a model folder. Errors: FAILED_PRECONDITION (MODEL_INVALID) if it is missing,
/// unreadable or larger than `max_bytes`.
absl::StatusOr<std::string> ReadModelFile(const std::string& dir, const std::string& file,
                                          int64_t max_bytes);

/// Parses a small JSON object. Errors: FAILED_PRECONDITION (MODEL_INVALID) with the byte at fault.
absl::StatusOr<nlohmann::json> ParseModelJson(absl::string_view text, absl::string_view file);

}  // namespace videonsa
