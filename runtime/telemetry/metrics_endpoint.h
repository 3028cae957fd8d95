#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/telemetry/metrics.h"

namespace videonsa {

/// Serves `GET /metrics` over HTTP on its own port, with its own thread.
///
/// Threads: all methods may be called from any thread. Stops when destroyed.
class MetricsEndpoint {
 public:
  /// Starts to listen on `address` ("host:port", port 0 chooses one).
  /// Errors: UNAVAILABLE if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& address,
                                                                const MetricsRegistry& registry);
  ~MetricsEndpoint();

  /// The port that is listened on.
  int port() const;

 private:
  struct Impl;
  explicit MetricsEndpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace videonsa
