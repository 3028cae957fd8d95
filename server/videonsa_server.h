#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "runtime/base/clock.h"
#include "runtime/serving/runtime.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/metrics_endpoint.h"
#include "server/access/access_control.h"
#include "server/access/tls_files.h"
#include "server/clip_prober.h"
#include "server/clip_store/clip_store.h"
#include "server/options.h"
#include "server/server_core.h"

namespace videonsa {

class AdminService;
class ClipService;
class ServerService;
class VideoQaService;

/// The gRPC front: listeners for the public, operators and probes, the clip store, health, metrics,
/// drain.
///
/// It listens at once and answers LOADING until Serve gives it a runtime, so that probes can tell a
/// loading server from a dead one. Health names: "" and "readiness" (READY), "liveness" (not
/// FAILED), and the public services. Nobody is ready while all workers are being restarted.
///
/// Threads: Start, Serve, Drain and the destructor from one thread; the rest from any.
class VideonsaServer {
 public:
  /// Opens the clip store and the listeners.
  /// Errors: FAILED_PRECONDITION (CLIP_DIR_UNUSABLE), UNAVAILABLE (ADDRESS_IN_USE),
  ///         INVALID_ARGUMENT (ACCESS_FILE_INVALID, TLS_FILE_INVALID, OPTION_INVALID as
  ///         CheckAdminAddress), NOT_FOUND (FILE_UNREADABLE).
  static absl::StatusOr<std::unique_ptr<VideonsaServer>> Start(const ServerOptions& options,
                                                               const Clock& clock,
                                                               MetricsRegistry& metrics);
  /// Ends all calls at once if Drain was not called.
  ~VideonsaServer();

  /// Begins to answer. The runtime lives until the server dies.
  void Serve(std::unique_ptr<Runtime> runtime);

  /// Refuses new questions and says so in health; the first step of Drain.
  void BeginDrain();

  /// Stops: refuses new work, waits `grace` so that balancers notice, closes the listeners, lets
  /// questions end until `timeout`, then ends them with what they have and cancels other calls.
  /// Returns how many questions were cut short. `hurry`, when notified, ends the grace and leaves
  /// questions 5 s.
  int Drain(absl::Duration grace, absl::Duration timeout, absl::Notification* hurry = nullptr);

  /// One round of what the maintenance thread does each second.
  void Tick();

  /// Reads access and certificate files again and takes them if they changed and are good; the
  /// maintenance thread does so every few seconds.
  void ReloadFiles();

  /// Takes over what a running server can change: log level, limits of tenants, and the files.
  void Reconfigure(const ServerOptions& options);

  int port() const { return port_; }
  int admin_port() const { return admin_port_; }    ///< 0: none
  int health_port() const { return health_port_; }  ///< 0: none
  int metrics_port() const;                         ///< 0: none
  const ServerCore& core() const { return *core_; }
  ClipStore& clips() { return *clips_; }

 private:
  VideonsaServer(const ServerOptions& options, const Clock& clock, MetricsRegistry& metrics);

  absl::Status Listen();
  /// Opens a listener for `services` at `address`; none with an empty one.
  absl::Status Open(const std::string& address,
                    std::shared_ptr<grpc::ServerCredentials> credentials,
                    const std::vector<grpc::Service*>& services,
                    std::unique_ptr<grpc::Server>& server, int& port);
  std::shared_ptr<grpc::ServerCredentials> AdminCredentials() const;
  void WarnIfOpen() const;
  void SetHealth();
  void Maintain();
  bool Stopping() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_; }

  const ServerOptions options_;
  const Clock& clock_;
  MetricsRegistry& metrics_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<TlsFiles> tls_;  // null: no TLS
  std::unique_ptr<ClipStore> clips_;
  std::unique_ptr<ServerCore> core_;
  std::unique_ptr<Runtime> runtime_;    // set by Serve
  std::unique_ptr<ClipProber> prober_;  // set by Serve
  std::unique_ptr<VideoQaService> video_qa_;
  std::unique_ptr<ClipService> clip_service_;
  std::unique_ptr<ServerService> server_service_;
  std::unique_ptr<AdminService> admin_service_;
  grpc::CallbackGenericService nothing_;  // of the health listener
  std::unique_ptr<grpc::Server> public_;
  std::unique_ptr<grpc::Server> admin_;
  std::unique_ptr<grpc::Server> health_;
  std::unique_ptr<MetricsEndpoint> endpoint_;
  std::shared_ptr<void> process_metrics_;
  int port_ = 0;
  int admin_port_ = 0;
  int health_port_ = 0;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool shut_ = false;                // owner thread: listeners are closed
  std::atomic<bool> serving_{true};  // some worker takes work
  std::thread maintenance_;
};

}  // namespace videonsa
