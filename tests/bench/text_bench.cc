// text_bench MODEL_DIR [FILE]: encoding rate of the model's tokenizer on hostile texts of 10 MB and
// on FILE, one line each. text_vs_tokenizers.py compares FILE with the tokenizers package.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "runtime/text/tokenizer.h"

namespace videonsa {
namespace {

constexpr size_t kHostileBytes = 10'000'000;

double SecondsOf(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::string Repeat(const std::string& unit) {
  std::string text;
  while (text.size() + unit.size() <= kHostileBytes) text += unit;
  return text;
}

void Measure(const Tokenizer& tokenizer, const std::string& name, const std::string& text) {
  size_t num_ids = 0;
  std::string problem;
  const double seconds = SecondsOf([&] {
    const auto ids = tokenizer.Encode(text);
    if (ids.ok()) {
      num_ids = ids->size();
    } else {
      problem = ids.status().ToString();
    }
  });
  std::printf("%-24s %10zu bytes %9zu ids %8.3f s %8.2f MB/s %s\n", name.c_str(), text.size(),
              num_ids, seconds, static_cast<double>(text.size()) / 1e6 / seconds, problem.c_str());
}

int Run(const std::string& model_dir, const char* file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer;
  const double load_seconds = SecondsOf([&] { tokenizer = Tokenizer::Load(model_dir); });
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::printf("load %.3f s\n", load_seconds);
  if (file != nullptr) {
    std::ifstream in(file, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    Measure(**tokenizer, "file, first time", text);
    Measure(**tokenizer, "file", text);
    return 0;
  }
  const std::vector<std::pair<std::string, std::string>> units = {
      {"letters", "a"},
      {"letters ab", "ab"},
      {"spaces", " "},
      {"newlines", "\n"},
      {"space newline", " \n"},
      {"digits", "7"},
      {"punctuation", "="},
      {"combining marks", "\xCC\x81"},
      {"mixed marks", "\xCC\xA3\xCC\x81"},
      {"letter and marks", "e\xCC\xA3\xCC\x81"},
      {"hangul jamo", "\xE1\x84\x92"},
      {"han", "\xE4\xB8\xAD"},
      {"emoji", "\xF0\x9F\x98\x80"},
      {"control look-alike", "<|im_end|>"},
      {"control beginnings", "<|im_en"},
      {"apostrophes", "'"},
      {"zero bytes", std::string(1, '\0')},
  };
  for (const auto& [name, unit] : units) Measure(**tokenizer, name, Repeat(unit));
  Measure(**tokenizer, "spaces then letter", std::string(kHostileBytes, ' ') + "a");
  Measure(**tokenizer, "spaces, letters", Repeat(std::string(999, ' ') + "a"));
  return 0;
}

}  // namespace
}  // namespace videonsa

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: text_bench MODEL_DIR [FILE]\n");
    return 2;
  }
  return videonsa::Run(argv[1], argc == 3 ? argv[2] : nullptr);
}
