#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Collectable;
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace videonsa {

/// A number that only goes up. A default-made handle counts nothing, so code can be run without a
/// registry.
///
/// Threads: any, without locks. Lifetime: not after its registry.
class Counter {
 public:
  Counter() = default;
  /// Requires: `amount` >= 0.
  void Add(double amount = 1) const;

 private:
  friend class MetricsRegistry;
  explicit Counter(prometheus::Counter* impl) : impl_(impl) {}
  prometheus::Counter* impl_ = nullptr;
};

/// A number that goes up and down. Threads, lifetime and default as Counter.
class Gauge {
 public:
  Gauge() = default;
  void Set(double value) const;
  void Add(double amount) const;

 private:
  friend class MetricsRegistry;
  explicit Gauge(prometheus::Gauge* impl) : impl_(impl) {}
  prometheus::Gauge* impl_ = nullptr;
};

/// A distribution over fixed buckets. Threads: any, a short lock. Lifetime, default as Counter.
class Histogram {
 public:
  Histogram() = default;
  void Observe(double value) const;

 private:
  friend class MetricsRegistry;
  explicit Histogram(prometheus::Histogram* impl) : impl_(impl) {}
  prometheus::Histogram* impl_ = nullptr;
};

/// Label names and values; a few, of closed sets only: never a clip, session or text, and a tenant
/// only where the operator asked for it.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// Upper bounds of histogram buckets, ascending.
using MetricBuckets = std::vector<double>;

/// Bucket sets (seconds, tokens, ratios, bytes), one per kind of quantity.
namespace buckets {
const MetricBuckets& FirstToken();  ///< 0.05 .. 300 s: first token, queue, prefill
const MetricBuckets& InterToken();  ///< 0.002 .. 2.5 s
const MetricBuckets& Request();     ///< 0.25 .. 900 s: whole requests and calls
const MetricBuckets& Stage();       ///< 0.001 .. 120 s: media and text stages, engine steps
const MetricBuckets& Tokens();      ///< 1-2-5 up to 200 000
const MetricBuckets& Sequences();   ///< 1 .. 64 sequences a step
const MetricBuckets& Ratio();       ///< 0.005 .. 1
const MetricBuckets& Bytes();       ///< 1 KiB .. 4 GiB, times four
}  // namespace buckets

/// All metrics of the process.
///
/// Children are created at start and kept as handles: Add* is slow, handles are not. Adding the
/// same name and labels again gives the same child.
///
/// Threads: all methods may be called from any thread.
class MetricsRegistry {
 public:
  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  /// Requires: `name` is a Prometheus name with its unit; `help` is one sentence; one name has one
  ///           type, one help text and one set of label names.
  Counter AddCounter(absl::string_view name, absl::string_view help,
                     const MetricLabels& labels = {});
  Gauge AddGauge(absl::string_view name, absl::string_view help, const MetricLabels& labels = {});
  Histogram AddHistogram(absl::string_view name, absl::string_view help,
                         const MetricBuckets& bounds, const MetricLabels& labels = {});

  /// Runs `refresh` before each scrape, for gauges that are read and not counted. The returned
  /// token unregisters it when destroyed, waiting for a scrape in progress.
  [[nodiscard]] std::shared_ptr<void> BeforeScrape(std::function<void()> refresh);

  /// The exposition text of this moment, as a scrape would give it.
  std::string Text() const;

  /// For the endpoint.
  std::shared_ptr<prometheus::Collectable> collectable() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// CPU time, memory, descriptors and threads of this process under their standard names, read at
/// each scrape. Keep the token as long as they shall be exported.
[[nodiscard]] std::shared_ptr<void> ExportProcessMetrics(MetricsRegistry& registry);

}  // namespace videonsa
