#include "client/channel.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace videonsa::client {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(
    const ChannelOptions& options) {
  if (!options.tls && options.ca_file.empty() && options.cert_file.empty() &&
      options.key_file.empty()) {
    return grpc::InsecureChannelCredentials();
  }
  if (options.cert_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key belong together; only one is set");
  }
  grpc::SslCredentialsOptions ssl;
  const std::pair<const std::string*, std::string*> files[] = {
      {&options.ca_file, &ssl.pem_root_certs},
      {&options.cert_file, &ssl.pem_cert_chain},
      {&options.key_file, &ssl.pem_private_key}};
  for (const auto& [path, target] : files) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> content = ReadFile(*path);
    if (!content.ok()) return content.status();
    *target = *std::move(content);
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

const char* ServiceConfigJson() {
  return R"({
  "methodConfig": [{
    "name": [
      {"service": "videonsa.v1.VideoQaService", "method": "Ask"},
      {"service": "videonsa.v1.VideoQaService", "method": "Estimate"},
      {"service": "videonsa.v1.ClipService", "method": "GetClip"},
      {"service": "videonsa.v1.ClipService", "method": "ListClips"},
      {"service": "videonsa.v1.ClipService", "method": "QueryUpload"},
      {"service": "videonsa.v1.ServerService"}
    ],
    "waitForReady": false,
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.2s",
      "maxBackoff": "5s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }],
  "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
})";
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ChannelOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = Credentials(options);
  if (!credentials.ok()) return credentials.status();
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(ServiceConfigJson());
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // After a cut, look for the server again quickly: a restart takes about as long as this.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetUserAgentPrefix("videonsa-client");
  return grpc::CreateCustomChannel(options.address, *credentials, arguments);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  // Reading a directory opens, then fails at the first byte.
  if (!in || !(in.peek() != EOF || in.eof())) {
    return LocalError(absl::StatusCode::kNotFound, "FILE_UNREADABLE",
                      absl::StrCat("cannot read ", path, ": ", std::strerror(errno)));
  }
  content << in.rdbuf();
  return content.str();
}

absl::Status WriteFile(const std::string& path, const std::string& content) {
  const std::string temporary = absl::StrCat(path, ".part");
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out << content;
    out.flush();
    if (!out) {
      return LocalError(absl::StatusCode::kInvalidArgument, "FILE_UNWRITABLE",
                        absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    return LocalError(absl::StatusCode::kInvalidArgument, "FILE_UNWRITABLE",
                      absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace videonsa::client
