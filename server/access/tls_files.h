#pragma once

#include <grpc/grpc_security.h>
#include <grpcpp/security/server_credentials.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/telemetry/metrics.h"
#include "server/access/tls_options.h"

namespace videonsa {

/// Certificate, key and client authorities, read again when the files change. A set that does not
/// fit together (key of another certificate, broken PEM, expired) is refused, and the one before it
/// goes on: connections never meet half of a change.
///
/// Threads: any. Lifetime: outlives the listeners that its credentials are for.
class TlsFiles {
 public:
  /// Errors: INVALID_ARGUMENT (TLS_FILE_INVALID) naming the option at fault.
  static absl::StatusOr<std::unique_ptr<TlsFiles>> Open(const TlsOptions& options,
                                                        MetricsRegistry& metrics);

  /// Reads the files and takes them if they differ and fit together. Logs what it did.
  /// Errors: as Open; the old set stays.
  absl::Status Reload();

  /// For one listener, whose new connections get the newest set; another call serves another
  /// listener.
  std::shared_ptr<grpc::ServerCredentials> Credentials();

 private:
  friend class ReloadingCredentials;
  struct Content {
    std::string cert, key, client_ca;
    bool operator==(const Content&) const = default;
  };

  TlsFiles(const TlsOptions& options, MetricsRegistry& metrics);
  static absl::StatusOr<Content> Read(const TlsOptions& options);
  // What a listener's transport has, so that it is told of a change once.
  struct Listener {
    TlsFiles* files = nullptr;
    int64_t fetched = 0;  // version
  };
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* listener, grpc_ssl_server_certificate_config** config);

  const TlsOptions options_;
  const Counter reloaded_, refused_;
  absl::Mutex mutex_;
  Content content_ ABSL_GUARDED_BY(mutex_);
  absl::Status last_ ABSL_GUARDED_BY(mutex_);  // of the last Reload, so that it is logged once
  int64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  // Their addresses are with the transports; `fetched` is guarded by mutex_.
  std::vector<std::unique_ptr<Listener>> listeners_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
