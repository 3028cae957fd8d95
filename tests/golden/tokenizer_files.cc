#include "tests/golden/tokenizer_files.h"

#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/match.h"

namespace videonsa::golden {
namespace {

namespace fs = std::filesystem;

// Folders with tokenizer.json, or vocab.json and merges.txt, at `root` or below.
std::vector<std::string> FoldersBelow(const std::string& root) {
  std::set<std::string> folders;
  for (const std::string& path : FindFiles(root, "tokenizer.json")) {
    if (fs::path(path).filename() == "tokenizer.json") {
      folders.insert(fs::path(path).parent_path().string());
    }
  }
  for (const std::string& path : FindFiles(root, "merges.txt")) {
    const fs::path folder = fs::path(path).parent_path();
    if (fs::exists(folder / "vocab.json")) folders.insert(folder.string());
  }
  return {folders.begin(), folders.end()};
}

}  // namespace

CaseTokenizers::CaseTokenizers(const GoldenOptions& options, Reporter& reporter)
    : options_(options),
      reporter_(reporter),
      case_folders_(FoldersBelow(options.dir)),
      model_folders_(FoldersBelow(options.models)) {}

std::string CaseTokenizers::FolderFor(const std::string& path, const nlohmann::json& json) const {
  for (const char* key : {"tokenizer", "model"}) {
    if (json.is_object() && json.contains(key) && json[key].is_string()) {
      const std::string folder = JoinPath(options_.models, json[key].get<std::string>());
      if (fs::is_directory(folder)) return folder;
    }
  }
  // Found files begin with DIR as it was given, so parents of the file are prefixes of folders.
  for (fs::path around = fs::path(path).parent_path();; around = around.parent_path()) {
    for (const std::string& folder : case_folders_) {
      const fs::path relative = fs::path(folder).lexically_relative(around);
      if (!relative.empty() && *relative.begin() != "..") return folder;
    }
    if (around == fs::path(options_.dir) || !around.has_relative_path() ||
        around == around.parent_path()) {
      break;
    }
  }
  if (!case_folders_.empty()) return case_folders_[0];
  return model_folders_.empty() ? "" : model_folders_[0];
}

const CaseTokenizers::Loaded* CaseTokenizers::For(const std::string& path,
                                                  const nlohmann::json& json) {
  const std::string folder = FolderFor(path, json);
  const auto [entry, is_new] = loaded_.try_emplace(folder);
  Loaded& loaded = entry->second;
  if (is_new && folder.empty()) {
    reporter_.Record(false, "tokenizer", "files", "no tokenizer below DIR or --models");
  } else if (is_new) {
    loaded.folder = folder;
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder);
    if (reporter_.ExpectOk(folder, "load", tokenizer.status())) {
      loaded.tokenizer = *std::move(tokenizer);
    }
  }
  return loaded.tokenizer == nullptr ? nullptr : &loaded;
}

}  // namespace videonsa::golden
