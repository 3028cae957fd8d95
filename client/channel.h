#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/channel.h"

namespace videonsa::client {

/// Where the server is and how to speak to it.
struct ChannelOptions {
  /// "host:port", "[v6]:port" or "unix:/path".
  std::string address = "localhost:8090";
  /// Encrypt. Implied by any of the files below.
  bool tls = false;
  /// PEM file with the authorities to trust; empty: the system's.
  std::string ca_file;
  /// PEM files of the client's own certificate and key (mutual TLS); both or none.
  std::string cert_file;
  std::string key_file;
};

/// Opens a channel with its own connection: two channels never share one, so that an upload cannot
/// hold up a question. Does not wait for the server.
///
/// The service config retries only calls that are safe to repeat (4 attempts, 0.2 s to 5 s, only
/// UNAVAILABLE, throttled); uploads resume and streams are restarted by their owners.
/// Errors: INVALID_ARGUMENT if a PEM file cannot be read or only one of cert and key is given.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ChannelOptions& options);

/// The service config as JSON, for other clients of the protocol.
const char* ServiceConfigJson();

/// The whole file. Errors: NOT_FOUND, with the name and the system's reason.
absl::StatusOr<std::string> ReadFile(const std::string& path);

/// Writes the whole file through a temporary one beside it, so that a reader never sees half.
absl::Status WriteFile(const std::string& path, const std::string& content);

}  // namespace videonsa::client
