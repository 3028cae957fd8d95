#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/metric_sets.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/metrics_endpoint.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, CountsWhatItIsTold) {
  MetricsRegistry registry;
  const Counter ok = registry.AddCounter("videonsa_x_total", "X.", {{"kind", "ok"}});
  const Counter bad = registry.AddCounter("videonsa_x_total", "X.", {{"kind", "bad"}});
  const Gauge level = registry.AddGauge("videonsa_level", "Level.");
  const Histogram sizes = registry.AddHistogram("videonsa_sizes_bytes", "Sizes.", {1, 10});
  ok.Add();
  ok.Add(2);
  level.Set(5);
  level.Add(-2);
  sizes.Observe(3);
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("videonsa_x_total{kind=\"ok\"} 3"));
  EXPECT_THAT(text, HasSubstr("videonsa_x_total{kind=\"bad\"} 0"));
  EXPECT_THAT(text, HasSubstr("videonsa_level 3"));
  EXPECT_THAT(text, HasSubstr("videonsa_sizes_bytes_bucket{le=\"1\"} 0"));
  EXPECT_THAT(text, HasSubstr("videonsa_sizes_bytes_bucket{le=\"10\"} 1"));
  (void)bad;
}

TEST(Metrics, SameNameAndLabelsAreOneChild) {
  MetricsRegistry registry;
  registry.AddCounter("videonsa_x_total", "X.").Add();
  registry.AddCounter("videonsa_x_total", "X.").Add();
  EXPECT_THAT(registry.Text(), HasSubstr("videonsa_x_total 2"));
}

TEST(Metrics, DefaultHandlesCountNothing) {
  Counter().Add();
  Gauge().Set(1);
  Histogram().Observe(1);
  const EngineMetrics engine;
  engine.step_seconds[0].Observe(1);
}

TEST(Metrics, RefreshRunsUntilItsTokenDies) {
  MetricsRegistry registry;
  const Gauge gauge = registry.AddGauge("videonsa_read", "Read at scrape.");
  int reads = 0;
  auto token = registry.BeforeScrape([&] { gauge.Set(++reads); });
  EXPECT_THAT(registry.Text(), HasSubstr("videonsa_read 1"));
  EXPECT_THAT(registry.Text(), HasSubstr("videonsa_read 2"));
  token.reset();
  EXPECT_THAT(registry.Text(), HasSubstr("videonsa_read 2"));
}

TEST(Metrics, SetsAreExportedAtZero) {
  MetricsRegistry registry;
  EngineMetrics::Create(registry);
  MediaMetrics::Create(registry);
  const std::string text = registry.Text();
  for (const char* line :
       {"videonsa_requests_running 0", "videonsa_requests_waiting{priority=\"interactive\"} 0",
        "videonsa_kv_pages{state=\"free\"} 0", "videonsa_kv_evictions_total{reason=\"ttl\"} 0",
        "videonsa_decoder_sandbox_exits_total{cause=\"seccomp\"} 0",
        "videonsa_media_errors_total{reason=\"corrupt\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Metrics, MemoryOfAGpuIsExportedWhereThereIsOne) {
  MetricsRegistry host;
  EngineMetrics::Create(host);
  EXPECT_THAT(host.Text(), Not(HasSubstr("videonsa_gpu_memory_bytes")));
  EXPECT_THAT(host.Text(), HasSubstr("videonsa_cuda_errors_total{kind=\"device_lost\"} 0"));
  MetricsRegistry gpu;
  const EngineMetrics metrics = EngineMetrics::Create(gpu, {3, 5});
  metrics.gpu_memory[0].weights.Set(7);
  metrics.gpu_memory[1].kv.Set(8);
  for (const char* labels :
       {"device=\"3\",pool=\"weights\",worker=\"0\"} 7", "device=\"5\",pool=\"kv\",worker=\"1\"} 8",
        "device=\"5\",pool=\"weights\",worker=\"1\"} 0"}) {
    EXPECT_THAT(gpu.Text(), HasSubstr(std::string("videonsa_gpu_memory_bytes{") + labels));
  }
}

double ValueOf(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
}

TEST(Metrics, ProcessCollectorReadsThisProcess) {
  MetricsRegistry registry;
  auto token = ExportProcessMetrics(registry);
  const std::string text = registry.Text();
  EXPECT_GT(ValueOf(text, "process_resident_memory_bytes"), 1e6);
  EXPECT_GE(ValueOf(text, "process_open_fds"), 3);
  EXPECT_GE(ValueOf(text, "process_threads"), 1);
  EXPECT_GE(ValueOf(text, "process_cpu_seconds_total"), 0);
  EXPECT_GT(ValueOf(text, "process_start_time_seconds"), 1.6e9);
}

std::string HttpGet(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string reply;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\nHost: localhost\r\n\r\n";
    EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    char buffer[4096];
    ssize_t got;
    while ((got = read(fd, buffer, sizeof(buffer))) > 0) {
      reply.append(buffer, static_cast<size_t>(got));
    }
  }
  close(fd);
  return reply;
}

TEST(MetricsEndpoint, ServesTheTextOnAChosenPort) {
  MetricsRegistry registry;
  registry.AddCounter("videonsa_x_total", "X.").Add(7);
  auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_THAT(HttpGet((*endpoint)->port(), "/metrics"), HasSubstr("videonsa_x_total 7"));
  EXPECT_THAT(HttpGet((*endpoint)->port(), "/other"), Not(HasSubstr("videonsa_x_total")));
  const auto second =
      MetricsEndpoint::Start("127.0.0.1:" + std::to_string((*endpoint)->port()), registry);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST(Log, OneJsonObjectPerLine) {
  const absl::Time when = absl::FromUnixMicros(1700000000123456);
  EXPECT_EQ(
      FormatLogLine(
          when, LogLevel::kInfo, "ask finished",
          {{"ask_id", "a1"}, {"tokens", 12}, {"took", absl::Milliseconds(1500)}, {"ok", true}}),
      "{\"ts\":\"2023-11-14T22:13:20.123456Z\",\"level\":\"info\",\"msg\":\"ask finished\","
      "\"ask_id\":\"a1\",\"tokens\":12,\"took\":1.5,\"ok\":true}");
}

TEST(Log, UserTextCannotBreakTheLine) {
  const std::string line =
      FormatLogLine(absl::UnixEpoch(), LogLevel::kWarning, "m",
                    {{"name", std::string("a\"\n{\x1b[31m\xff") + std::string(1000, 'x')}});
  EXPECT_THAT(line, HasSubstr("a\\\"\\u000a{\\u001b[31m\\u00ff"));
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_LT(line.size(), 400u);
}

TEST(Log, CountsByLevel) {
  MetricsRegistry registry;
  CountLogMessages(&registry);
  Log(LogLevel::kDebug, "below the level, counted all the same");
  CountLogMessages(nullptr);
  EXPECT_THAT(registry.Text(), HasSubstr("videonsa_log_messages_total{level=\"debug\"} 1"));
}

TEST(Log, LevelsHaveNames) {
  LogLevel level = LogLevel::kInfo;
  EXPECT_TRUE(ParseLogLevel("error", &level));
  EXPECT_EQ(level, LogLevel::kError);
  EXPECT_FALSE(ParseLogLevel("loud", &level));
}

}  // namespace
}  // namespace videonsa
