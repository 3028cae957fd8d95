// Plans capacity and compares scheduling policies: the product's engine on simulated devices and a
// simulated clock.
//
// Usage: videonsa-sim [--requests N] [--workers N] [--load X] [--seed N] [--trace NAME]...
//                     [--policy NAME]... [--set OPTION=VALUE]... [--json FILE]
// --set changes an option of our policy (cluster.cc, SetOption).
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/numbers.h"
#include "tests/sim/cluster.h"

namespace videonsa::sim {
namespace {

struct Flags {
  int requests = 100'000;
  int workers = 64;
  double load = 1.1;
  uint64_t seed = 1;
  std::vector<std::string> traces, policies, options;
  std::string json;
};

bool ReadFlag(const std::string& name, const std::string& value, Flags& flags) {
  if (name == "--requests") return absl::SimpleAtoi(value, &flags.requests) && flags.requests > 0;
  if (name == "--workers") return absl::SimpleAtoi(value, &flags.workers) && flags.workers > 0;
  if (name == "--load") return absl::SimpleAtod(value, &flags.load) && flags.load > 0;
  if (name == "--seed") return absl::SimpleAtoi(value, &flags.seed);
  if (name == "--trace") return flags.traces.push_back(value), true;
  if (name == "--policy") return flags.policies.push_back(value), true;
  if (name == "--set") return flags.options.push_back(value), true;
  if (name == "--json") return flags.json = value, true;
  return false;
}

int Main(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 >= argc || !ReadFlag(argv[i], argv[i + 1], flags)) {
      std::fprintf(stderr, "bad argument: %s\n", argv[i]);
      return 2;
    }
  }
  if (flags.traces.empty()) flags.traces = TraceNames();
  std::printf("%d requests on %d simulated H200 workers, load %.2f, seed %llu\n", flags.requests,
              flags.workers, flags.load, static_cast<unsigned long long>(flags.seed));
  std::vector<SimResult> results;
  for (const std::string& name : flags.traces) {
    const auto trace = MakeTrace(name, flags.requests, flags.workers, flags.load, flags.seed);
    if (!trace.ok()) {
      std::fprintf(stderr, "%s\n", std::string(trace.status().message()).c_str());
      return 2;
    }
    std::vector<Policy> policies = Policies(flags.workers);
    for (Policy& policy : policies) {
      for (const std::string& option : flags.options) {
        if (policy.name == "ours" && !SetOption(option, policy.engine)) {
          std::fprintf(stderr, "no such option: %s\n", option.c_str());
          return 2;
        }
      }
      if (!flags.policies.empty() && std::find(flags.policies.begin(), flags.policies.end(),
                                               policy.name) == flags.policies.end()) {
        continue;
      }
      results.push_back(Simulate(*trace, name, policy, flags.workers, flags.seed));
      std::fprintf(stderr, "%s, %s: %.1f s\n", name.c_str(), policy.name.c_str(),
                   results.back().real_seconds);
    }
  }
  std::fputs(ResultsText(results).c_str(), stdout);
  if (!flags.json.empty() && !(std::ofstream(flags.json) << ResultsJson(results))) {
    std::fprintf(stderr, "cannot write %s\n", flags.json.c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace videonsa::sim

int main(int argc, char** argv) { return videonsa::sim::Main(argc, argv); }
