#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace videonsa::openai {

/// Counts of one process in Prometheus' text format. Threads: any, without locks.
class FrontMetrics {
 public:
  /// Set once, at the end: answers that are still open give up.
  std::atomic<bool> cut{false};

  /// One HTTP request has been answered.
  void CountAnswer(int http_status);
  void CountDisconnect() { ++disconnects_; }

  std::atomic<int> open_questions{0};
  std::atomic<int64_t> body_bytes{0};  ///< held by requests being read or uploaded

  /// The exposition; connections are the server's own counts.
  std::string Text(int open_connections, int64_t refused_connections) const;

 private:
  static constexpr int kStatuses = 600;
  std::array<std::atomic<int64_t>, kStatuses> answers_{};
  std::atomic<int64_t> disconnects_{0};
};

}  // namespace videonsa::openai
