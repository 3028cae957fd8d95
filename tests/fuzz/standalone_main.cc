// Runs a fuzz target without libFuzzer: PROGRAM RUNS SEED_FILE... feeds each file and RUNS random
// changes of them, the same ones every time.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void Feed(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

// Overwrites, removes, repeats or truncates somewhere.
void Change(std::mt19937& random, std::string& bytes) {
  if (bytes.empty()) return;
  const size_t at = random() % bytes.size();
  const size_t length = 1 + random() % 16;
  switch (random() % 5) {
    case 0:
      bytes[at] = static_cast<char>(random());
      break;
    case 1:
      bytes.erase(at, length);
      break;
    case 2:
      bytes.insert(at, bytes.substr(random() % bytes.size(), length));
      break;
    case 3:
      bytes[at] = "0123456789-.eE{}[],:\"\\"[random() % 22];
      break;
    default:
      if (random() % 8 == 0) bytes.resize(at);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s RUNS SEED_FILE...\n", argv[0]);
    return 2;
  }
  std::vector<std::string> seeds;
  for (int i = 2; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "cannot read %s\n", argv[i]);
      return 2;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    Feed(seeds.back());
  }
  std::mt19937 random(1);
  const int runs = std::atoi(argv[1]);
  for (int run = 0; run < runs; ++run) {
    std::string bytes = seeds[random() % seeds.size()];
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) Change(random, bytes);
    Feed(bytes);
  }
  std::printf("%d runs from %zu seeds\n", runs, seeds.size());
  return 0;
}
