#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace videonsa::testing {

/// A real videonsa-server process on free ports of the loopback, for end-to-end tests.
///
/// Lifetime: the destructor kills the process and removes nothing of `clip_dir`.
class ServerProcess {
 public:
  struct Options {
    std::string binary;     ///< path of videonsa-server
    std::string model_dir;  ///< empty: the bundled model
    std::string clip_dir;   ///< must exist
    std::vector<std::string> extra_flags;
  };

  /// Starts the process and waits until it says that it is ready, at most `timeout`.
  /// Errors: what it printed, if it ended or did not become ready.
  static absl::Status Start(const Options& options, std::unique_ptr<ServerProcess>& out,
                            absl::Duration timeout = absl::Seconds(60));
  ~ServerProcess();

  const std::string& address() const { return address_; }
  pid_t pid() const { return pid_; }
  /// Address of the HTTP port that serves /metrics.
  const std::string& metrics_address() const { return metrics_address_; }
  /// Sends `signal` and, if it ends the process, reaps it.
  void Signal(int signal);
  /// Waits for the end; returns the exit code, or -signal.
  int Wait();
  /// Sum of the resident sizes of the process and its children, in bytes.
  int64_t ResidentBytes() const;
  /// Process ids of the children (decoder processes).
  std::vector<pid_t> Children() const;
  /// Open file descriptors of the process.
  int OpenFiles() const;

 private:
  ServerProcess() = default;
  pid_t pid_ = -1;
  int out_fd_ = -1;
  std::string address_;
  std::string metrics_address_;
};

}  // namespace videonsa::testing
