// golden_check KIND DIR [--models ROOT] [--data ROOT] [--device cpu|cuda]
// [--most N]: compares the server's own code with golden files. Exit code 0: all passed; 1: a
// failure or no case; 2: usage.
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "tests/golden/checks.h"

namespace videonsa::golden {
namespace {

struct Kind {
  const char* name;
  CheckFunction check;
};

// Every kind there is; see checks.h.
const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {
      {"accuracy", &CheckAccuracy},
      {"chat", &CheckChat},
      {"device", &CheckDevice},
      {"media", &CheckMedia},
      {"model", &CheckModel},
      {"mrope", &CheckMrope},
      {"nsa", &CheckNsa},
      {"preprocess", &CheckPreprocess},
      {"tokenizer", &CheckTokenizer},
  };
  return kinds;
}

int Usage(const std::string& problem) {
  std::cerr << "golden_check: " << problem
            << "\nusage: golden_check KIND DIR [--models ROOT] [--data ROOT] [--device cpu|cuda] "
               "[--most N]\nKIND is one of:";
  for (const Kind& kind : Kinds()) std::cerr << " " << kind.name;
  std::cerr
      << "\n--models: paths of models inside a case start here (default: the folder above "
         "DIR)\n--data: paths of clips and pictures start here (default: the folder data "
         "beside the folder above DIR, else the folder above DIR); of accuracy, the folder with "
         "questions.json\n--most: questions of accuracy\n";
  return 2;
}

std::string FolderAbove(const std::string& dir) {
  std::filesystem::path path = std::filesystem::absolute(dir).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();  // trailing slash
  return path.parent_path().string();
}

int Run(const std::vector<std::string>& args) {
  std::vector<std::string> positional;
  GoldenOptions options;
  for (size_t i = 0; i < args.size(); ++i) {
    std::string name = args[i], value;
    if (!absl::StartsWith(name, "--")) {
      positional.push_back(name);
      continue;
    }
    if (const size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    } else if (++i < args.size()) {
      value = args[i];
    } else {
      return Usage(name + " needs a value");
    }
    if (name == "--models") {
      options.models = value;
    } else if (name == "--data") {
      options.data = value;
    } else if (name == "--device") {
      if (value != "cpu" && value != "cuda") return Usage("--device " + value + ", cpu or cuda");
      options.cuda = value == "cuda";
    } else if (name == "--most") {
      if (!absl::SimpleAtoi(value, &options.most) || options.most < 1) {
        return Usage("--most " + value + ", a number from 1 on");
      }
    } else {
      return Usage("unknown option " + name);
    }
  }
  if (positional.size() != 2) return Usage("KIND and DIR are needed");
  options.dir = positional[1];
  if (!std::filesystem::is_directory(options.dir)) return Usage("no folder " + options.dir);
  const std::string above = FolderAbove(options.dir);
  if (options.models.empty()) options.models = above;
  if (options.data.empty()) {
    options.data = JoinPath(FolderAbove(above), "data");
    if (!std::filesystem::is_directory(options.data)) options.data = above;
  }
  for (const Kind& kind : Kinds()) {
    if (positional[0] != kind.name) continue;
    Reporter reporter(std::cout);
    kind.check(options, reporter);
    if (reporter.passed() + reporter.failed() == 0) {
      std::cout << "no case of kind " << kind.name << " found\n";
    }
    std::cout << reporter.passed() << " passed, " << reporter.failed() << " failed" << std::endl;
    return reporter.failed() == 0 && reporter.passed() > 0 ? 0 : 1;
  }
  return Usage("unknown kind " + positional[0]);
}

}  // namespace
}  // namespace videonsa::golden

int main(int argc, char** argv) {
  return videonsa::golden::Run(std::vector<std::string>(argv + 1, argv + argc));
}
