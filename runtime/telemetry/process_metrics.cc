#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/telemetry/metrics.h"

namespace videonsa {
namespace {

struct ProcessFacts {
  double cpu_seconds = 0;
  double resident_bytes = 0;
  double threads = 0;
  double start_seconds = 0;  // since boot
  double open_fds = 0;
};

double CountOpenFds() {
  DIR* dir = opendir("/proc/self/fd");
  if (dir == nullptr) return 0;
  double count = 0;
  while (const dirent* entry = readdir(dir)) count += entry->d_name[0] != '.';
  closedir(dir);
  return count - 1;  // not the one that reads
}

// Reads /proc/self/stat (man 5 proc); the second field may hold spaces and ends with ')'.
ProcessFacts ReadProcessFacts() {
  ProcessFacts facts;
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t paren = line.rfind(')');
  if (paren == std::string::npos || paren + 2 > line.size()) return facts;
  const std::vector<std::string> fields = absl::StrSplit(line.substr(paren + 2), ' ');
  const auto number = [&fields](size_t field) {  // numbered from 1 as in the manual
    double value = 0;
    if (field < 3 || field - 3 >= fields.size()) return value;
    return absl::SimpleAtod(fields[field - 3], &value) ? value : 0.0;
  };
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  facts.cpu_seconds = (number(14) + number(15)) / ticks;
  facts.threads = number(20);
  facts.start_seconds = number(22) / ticks;
  facts.resident_bytes = number(24) * static_cast<double>(sysconf(_SC_PAGESIZE));
  facts.open_fds = CountOpenFds();
  return facts;
}

double SecondsOf(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

std::shared_ptr<void> ExportProcessMetrics(MetricsRegistry& registry) {
  const Counter cpu =
      registry.AddCounter("process_cpu_seconds_total", "User and system CPU time spent.");
  const Gauge resident =
      registry.AddGauge("process_resident_memory_bytes", "Resident memory size.");
  const Gauge open_fds = registry.AddGauge("process_open_fds", "Open file descriptors.");
  const Gauge threads = registry.AddGauge("process_threads", "Threads of the process.");
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  registry.AddGauge("process_max_fds", "Most file descriptors that may be open.")
      .Set(limit.rlim_cur == RLIM_INFINITY ? std::numeric_limits<double>::infinity()
                                           : static_cast<double>(limit.rlim_cur));
  registry.AddGauge("process_start_time_seconds", "Start of the process since the Unix epoch.")
      .Set(SecondsOf(CLOCK_REALTIME) - SecondsOf(CLOCK_BOOTTIME) +
           ReadProcessFacts().start_seconds);
  auto counted = std::make_shared<double>(0);
  return registry.BeforeScrape([=] {
    const ProcessFacts facts = ReadProcessFacts();
    if (facts.cpu_seconds > *counted) {
      cpu.Add(facts.cpu_seconds - *counted);
      *counted = facts.cpu_seconds;
    }
    resident.Set(facts.resident_bytes);
    open_fds.Set(facts.open_fds);
    threads.Set(facts.threads);
  });
}

}  // namespace videonsa
