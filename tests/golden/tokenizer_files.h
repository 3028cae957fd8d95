#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/golden/checks.h"

namespace videonsa {
class Tokenizer;
}

namespace videonsa::golden {

/// The folders with a tokenizer (tokenizer.json, or vocab.json and merges.txt) below `options.dir`,
/// or below `options.models` if there is none; sorted.
std::vector<std::string> FindTokenizerFolders(const GoldenOptions& options);

/// Loads the first of them; a failure is reported and gives null.
std::unique_ptr<Tokenizer> LoadCaseTokenizer(const GoldenOptions& options, Reporter& reporter);

}  // namespace videonsa::golden
