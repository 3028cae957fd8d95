#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/text/tokenizer.h"
#include "tests/golden/checks.h"

namespace videonsa::golden {

/// Finds and loads the tokenizer that a case file belongs to.
///
/// The one its field "tokenizer" or "model" names (a folder below --models) if it has such a field;
/// else the first, by name, of the nearest folder around the file that holds any, up to DIR; else
/// the first below --models.
///
/// Threads: one at a time. Lifetime: tokenizers live as long as this.
class CaseTokenizers {
 public:
  struct Loaded {
    std::string folder;
    std::unique_ptr<Tokenizer> tokenizer;  ///< null if it could not be loaded
  };

  CaseTokenizers(const GoldenOptions& options, Reporter& reporter);

  /// The tokenizer of the case file at `path` with content `json`, or null; a failure to find or
  /// load it is reported once.
  const Loaded* For(const std::string& path, const nlohmann::json& json);

 private:
  std::string FolderFor(const std::string& path, const nlohmann::json& json) const;

  const GoldenOptions& options_;
  Reporter& reporter_;
  std::vector<std::string> case_folders_, model_folders_;  ///< with a tokenizer; sorted
  std::map<std::string, Loaded> loaded_;                   ///< by folder; "": none found
};

}  // namespace videonsa::golden
