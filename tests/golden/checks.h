#pragma once

#include <string>

#include "tests/golden/golden_case.h"
#include "tests/golden/reporter.h"

namespace videonsa::golden {

/// What the command line asked for.
struct GoldenOptions {
  std::string dir;     ///< folder whose cases are run, searched recursively
  std::string models;  ///< paths of models inside a case start here
  std::string data;    ///< paths of clips and pictures inside a case start here
  bool cuda = false;   ///< kinds model and nsa: on GPU 0 instead of the CPU; accuracy: there too
  int most = 0;        ///< kind accuracy: only this many questions; 0: all
};

/// Runs the cases of one kind found below `options.dir` through the product's own code, one
/// reported line a tensor or value. A folder without a case of the kind reports nothing.
using CheckFunction = void (*)(const GoldenOptions& options, Reporter& reporter);

void CheckAccuracy(const GoldenOptions& options, Reporter& reporter);
void CheckChat(const GoldenOptions& options, Reporter& reporter);
void CheckDevice(const GoldenOptions& options, Reporter& reporter);
void CheckMedia(const GoldenOptions& options, Reporter& reporter);
void CheckModel(const GoldenOptions& options, Reporter& reporter);
void CheckMrope(const GoldenOptions& options, Reporter& reporter);
void CheckNsa(const GoldenOptions& options, Reporter& reporter);
void CheckPreprocess(const GoldenOptions& options, Reporter& reporter);
void CheckTokenizer(const GoldenOptions& options, Reporter& reporter);

}  // namespace videonsa::golden
