#include "tests/golden/tokenizer_files.h"

#include <filesystem>
#include <set>
#include <utility>

#include "runtime/text/tokenizer.h"

namespace videonsa::golden {

std::vector<std::string> FindTokenizerFolders(const GoldenOptions& options) {
  std::set<std::string> folders;
  for (const std::string& root : {options.dir, options.models}) {
    for (const char* file : {"tokenizer.json", "merges.txt"}) {
      for (const std::string& path : FindFiles(root, file)) {
        const std::filesystem::path folder = std::filesystem::path(path).parent_path();
        if (std::filesystem::path(path).filename() == file) folders.insert(folder.string());
      }
    }
    if (!folders.empty()) break;
  }
  return {folders.begin(), folders.end()};
}

std::unique_ptr<Tokenizer> LoadCaseTokenizer(const GoldenOptions& options, Reporter& reporter) {
  const std::vector<std::string> folders = FindTokenizerFolders(options);
  if (folders.empty()) {
    reporter.Record(false, "tokenizer", "files", "no tokenizer below DIR or --models");
    return nullptr;
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folders[0]);
  if (!reporter.ExpectOk(folders[0], "load", tokenizer.status())) return nullptr;
  return *std::move(tokenizer);
}

}  // namespace videonsa::golden
