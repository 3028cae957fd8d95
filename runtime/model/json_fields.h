#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace videonsa {

/// Reads typed fields of a JSON object and remembers the first thing that was wrong.
///
/// A missing or null key leaves the default; a value of the wrong type or out of range is an error
/// that names file, key, value and limits.
class JsonFields {
 public:
  /// `object` may be null or no object: every key is then missing. Outlives the reader.
  JsonFields(const nlohmann::json* object, std::string file, std::string prefix,
             absl::Status* status);

  bool Has(const char* key) const { return Find(key) != nullptr; }
  /// The object under `key`; empty if there is none.
  JsonFields Object(const char* key) const;

  void Int(const char* key, int64_t min, int64_t max, int* out) const;
  void Int64(const char* key, int64_t min, int64_t max, int64_t* out) const;
  void Float(const char* key, double min, double max, float* out) const;
  void Bool(const char* key, bool* out) const;
  void String(const char* key, std::string* out) const;
  /// An array of integers.
  void Ints(const char* key, int64_t min, int64_t max, std::vector<int>* out) const;
  /// One integer or an array of integers.
  void IntOrInts(const char* key, int64_t min, int64_t max, std::vector<int32_t>* out) const;
  void Floats(const char* key, size_t count, float* out) const;
  void Strings(const char* key, std::vector<std::string>* out) const;

  /// Records an error about `key`.
  void Fail(const char* key, const std::string& message) const;
  bool ok() const { return status_->ok(); }

 private:
  const nlohmann::json* Find(const char* key) const;

  const nlohmann::json* object_;
  std::string file_;
  std::string prefix_;
  absl::Status* status_;
};

/// Parses a JSON object file of the model folder. Errors: MODEL_INVALID.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& dir, const std::string& name);

}  // namespace videonsa
