#include "runtime/telemetry/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>

#include "absl/synchronization/mutex.h"
#include "runtime/base/check.h"

namespace videonsa {

void Counter::Add(double amount) const {
  if (impl_ != nullptr) impl_->Increment(amount);
}
void Gauge::Set(double value) const {
  if (impl_ != nullptr) impl_->Set(value);
}
void Gauge::Add(double amount) const {
  if (impl_ != nullptr) impl_->Increment(amount);
}
void Histogram::Observe(double value) const {
  if (impl_ != nullptr) impl_->Observe(value);
}

namespace buckets {

const MetricBuckets& FirstToken() {
  static const auto* const kBounds = new MetricBuckets{
      .05, .1, .25, .5, .75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300};
  return *kBounds;
}
const MetricBuckets& InterToken() {
  static const auto* const kBounds =
      new MetricBuckets{.002, .004, .006, .008, .01, .0125, .015, .02, .025, .03,
                        .04,  .05,  .075, .1,   .15, .2,    .3,   .5,  1,    2.5};
  return *kBounds;
}
const MetricBuckets& Request() {
  static const auto* const kBounds = new MetricBuckets{
      .25, .5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 480, 600, 900};
  return *kBounds;
}
const MetricBuckets& Stage() {
  static const auto* const kBounds = new MetricBuckets{
      .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120};
  return *kBounds;
}
const MetricBuckets& Tokens() {
  static const auto* const kBounds = new MetricBuckets{
      1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
  return *kBounds;
}
const MetricBuckets& Sequences() {
  static const auto* const kBounds = new MetricBuckets{1, 2, 4, 8, 12, 16, 24, 32, 48, 64};
  return *kBounds;
}
const MetricBuckets& Ratio() {
  static const auto* const kBounds =
      new MetricBuckets{.005, .01, .02, .03, .04, .05, .075, .1, .15, .2, .3, .5, .75, 1};
  return *kBounds;
}
const MetricBuckets& Bytes() {
  static const auto* const kBounds = [] {
    auto* bounds = new MetricBuckets;
    for (double bytes = 1024; bytes <= 4.0 * 1024 * 1024 * 1024; bytes *= 4) {
      bounds->push_back(bytes);
    }
    return bounds;
  }();
  return *kBounds;
}

}  // namespace buckets

// One collectable for the endpoint: refreshes what is read, then collects what is counted.
struct MetricsRegistry::Impl : prometheus::Collectable {
  prometheus::Registry registry;
  mutable absl::Mutex mutex;
  std::map<std::string, prometheus::Family<prometheus::Counter>*> counters ABSL_GUARDED_BY(mutex);
  std::map<std::string, prometheus::Family<prometheus::Gauge>*> gauges ABSL_GUARDED_BY(mutex);
  std::map<std::string, prometheus::Family<prometheus::Histogram>*> histograms
      ABSL_GUARDED_BY(mutex);

  mutable absl::Mutex refresh_mutex;  // held while refreshers run; never with `mutex`
  std::map<int, std::function<void()>> refreshers ABSL_GUARDED_BY(refresh_mutex);
  int next_refresher ABSL_GUARDED_BY(refresh_mutex) = 0;

  std::vector<prometheus::MetricFamily> Collect() const override {
    absl::MutexLock lock(&refresh_mutex);
    for (const auto& [id, refresh] : refreshers) refresh();
    return registry.Collect();
  }
};

namespace {

prometheus::Labels LabelsOf(const MetricLabels& labels) {
  return prometheus::Labels(labels.begin(), labels.end());
}

template <typename Families, typename Builder>
auto& FamilyOf(Families& families, Builder builder, prometheus::Registry& registry,
               absl::string_view name, absl::string_view help) {
  auto& family = families[std::string(name)];
  if (family == nullptr) {
    family = &builder.Name(std::string(name)).Help(std::string(help)).Register(registry);
  }
  return *family;
}

}  // namespace

MetricsRegistry::MetricsRegistry() : impl_(std::make_shared<Impl>()) {}
MetricsRegistry::~MetricsRegistry() = default;

Counter MetricsRegistry::AddCounter(absl::string_view name, absl::string_view help,
                                    const MetricLabels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  VNSA_CHECK(!impl_->gauges.count(std::string(name)) && !impl_->histograms.count(std::string(name)))
      << name;
  auto& family = FamilyOf(impl_->counters, prometheus::BuildCounter(), impl_->registry, name, help);
  return Counter(&family.Add(LabelsOf(labels)));
}

Gauge MetricsRegistry::AddGauge(absl::string_view name, absl::string_view help,
                                const MetricLabels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  VNSA_CHECK(!impl_->counters.count(std::string(name)) &&
             !impl_->histograms.count(std::string(name)))
      << name;
  auto& family = FamilyOf(impl_->gauges, prometheus::BuildGauge(), impl_->registry, name, help);
  return Gauge(&family.Add(LabelsOf(labels)));
}

Histogram MetricsRegistry::AddHistogram(absl::string_view name, absl::string_view help,
                                        const MetricBuckets& bounds, const MetricLabels& labels) {
  absl::MutexLock lock(&impl_->mutex);
  VNSA_CHECK(!impl_->counters.count(std::string(name)) && !impl_->gauges.count(std::string(name)))
      << name;
  auto& family =
      FamilyOf(impl_->histograms, prometheus::BuildHistogram(), impl_->registry, name, help);
  return Histogram(&family.Add(LabelsOf(labels), bounds));
}

std::shared_ptr<void> MetricsRegistry::BeforeScrape(std::function<void()> refresh) {
  absl::MutexLock lock(&impl_->refresh_mutex);
  const int id = impl_->next_refresher++;
  impl_->refreshers[id] = std::move(refresh);
  return std::shared_ptr<void>(nullptr, [impl = impl_, id](void*) {
    absl::MutexLock lock(&impl->refresh_mutex);
    impl->refreshers.erase(id);
  });
}

std::string MetricsRegistry::Text() const {
  return prometheus::TextSerializer().Serialize(impl_->Collect());
}

std::shared_ptr<prometheus::Collectable> MetricsRegistry::collectable() const { return impl_; }

}  // namespace videonsa
