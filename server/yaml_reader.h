#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// A value of a YAML document, as text: what it means is up to the reader of the file.
struct YamlValue {
  enum class Kind { kEmpty, kText, kList, kMap };
  Kind kind = Kind::kEmpty;
  int line = 0;  ///< from 1
  std::string text;
  std::vector<YamlValue> items;
  std::vector<std::pair<std::string, YamlValue>> fields;  ///< in the order of the file

  /// The field named `name`, or null.
  const YamlValue* Find(absl::string_view name) const;
};

/// Reads one YAML document; no aliases, no key twice, at most 16 levels and 1 MiB.
///
/// Errors: INVALID_ARGUMENT (YAML_INVALID) with the line.
absl::StatusOr<YamlValue> ParseYaml(const std::string& text);

/// Reads the file at `path` and then as ParseYaml.
/// Errors: NOT_FOUND (FILE_UNREADABLE) with the system's reason.
absl::StatusOr<YamlValue> ReadYamlFile(const std::string& path);

/// The whole file, at most 1 MiB. Errors: NOT_FOUND (FILE_UNREADABLE).
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace videonsa
