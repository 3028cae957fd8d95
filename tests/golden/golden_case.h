#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"

namespace videonsa::golden {

/// One tensor of a .safetensors file, copied out.
struct GoldenTensor {
  std::string dtype;  ///< "F32", "F64", "BF16", "I32", "I64", "U8" or "BOOL"
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;  ///< little endian, row major

  int64_t num_elements() const;
  /// Requires: dtype F32, F64 or BF16.
  std::vector<float> Floats() const;
  /// Requires: dtype I32, I64, U8 or BOOL.
  std::vector<int64_t> Integers() const;
};

/// X.json with the tensors of the .safetensors file beside it (none if there is no such file).
struct GoldenCase {
  std::string name;  ///< file name without .json
  nlohmann::json json;
  std::map<std::string, GoldenTensor> tensors;

  /// The tensor called `tensor`, or null.
  const GoldenTensor* Find(const std::string& tensor) const;
};

/// Paths of the files below `dir` that end in `suffix` (".json"), sorted; links are followed.
std::vector<std::string> FindFiles(const std::string& dir, const std::string& suffix);

/// Reads a whole file. Errors: NOT_FOUND.
absl::StatusOr<std::string> ReadFile(const std::string& path);

/// Reads and parses a JSON file. Errors: NOT_FOUND, INVALID_ARGUMENT (not JSON).
absl::StatusOr<nlohmann::json> ReadJson(const std::string& path);

/// Reads every tensor of a .safetensors file. Errors: NOT_FOUND, INVALID_ARGUMENT.
absl::StatusOr<std::map<std::string, GoldenTensor>> ReadSafetensors(const std::string& path);

/// Reads `json_path` and the tensors: of the file named by its field "file" if it has one, else of
/// the file of the same name. Errors: as ReadJson and ReadSafetensors.
absl::StatusOr<GoldenCase> ReadGoldenCase(const std::string& json_path);

/// `a/b` for a relative `b`, else `b`.
std::string JoinPath(const std::string& a, const std::string& b);

}  // namespace videonsa::golden
