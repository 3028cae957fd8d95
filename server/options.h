#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "runtime/serving/runtime.h"
#include "runtime/telemetry/log.h"
#include "server/access/tenant_limits.h"
#include "server/access/tls_options.h"
#include "server/clip_store/clip_store.h"
#include "server/url_fetch/url_fetcher.h"

namespace videonsa {

/// Bounds of one question, beyond those of the model.
struct QuestionLimits {
  int max_turns = 64;
  int max_parts_per_turn = 64;
  int64_t max_text_bytes = 32 * 1024;  ///< over all texts of a question
  int max_clips = 8;                   ///< clips and pictures
  int64_t max_inline_bytes = 3 * 1024 * 1024;
  double max_fps = 60.0;
  int max_stops = 8;
  int max_stop_bytes = 64;
  int max_top_logprobs = 20;
};

/// Bounds of sessions.
struct SessionOptions {
  int total = 64;
  int tenant = 16;                                 ///< of one tenant
  absl::Duration default_ttl = absl::Minutes(10);  ///< from the last use
  absl::Duration max_ttl = absl::Hours(24);
  int64_t bytes = int64_t{256} << 20;  ///< clips and pictures sent inside requests, of all sessions
};

/// Fetching clips from URLs; see UrlRules. Off while no host is allowed.
struct UrlOptions {
  UrlRules rules;
  FetchLimits limits;  ///< max_bytes is ClipStoreOptions::max_clip_bytes
  int threads = 4;
};

/// Who may call, and what a tenant may use. Without a file: everybody, as one tenant.
struct AccessOptions {
  std::string file;     ///< see AccessRules
  TenantLimits tenant;  ///< of tenants the file says nothing else of; the clip store has its own
  int named_tenants = 0;
  TlsOptions tls;  ///< of the public address, and of an admin address that is not local
};

/// How long a connection may live, and what it may leave undone.
struct ConnectionOptions {
  int max_streams = 128;
  absl::Duration handshake = absl::Seconds(10);  ///< until its settings have come
  absl::Duration idle = absl::Minutes(10);
  absl::Duration age = absl::Minutes(30);
  absl::Duration keepalive = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
};

/// Spans of answered questions, for viewers of traces.
struct TraceOptions {
  std::string file;               ///< empty: none
  std::string format = "chrome";  ///< or "otlp"
};

/// Everything the server can be told. Each field is one row of the table in options.cc.
struct ServerOptions {
  RuntimeOptions runtime;
  ClipStoreOptions clips;
  QuestionLimits question;
  UrlOptions urls;
  AccessOptions access;
  ConnectionOptions connection;
  TraceOptions trace;

  std::string listen = "127.0.0.1:8090";
  std::string admin_listen = "127.0.0.1:0";    ///< empty: none; see CheckAdminAddress
  std::string health_listen;                   ///< health only, unencrypted; empty: none
  std::string metrics_listen = "127.0.0.1:0";  ///< empty: none
  std::string reflection = "auto";

  absl::Duration default_deadline = absl::Seconds(120);
  absl::Duration max_deadline = absl::Seconds(600);
  absl::Duration replay_ttl = absl::Minutes(10);  ///< of stored answers, by request_id
  int64_t replay_bytes = 64 * 1024 * 1024;
  SessionOptions sessions;
  int64_t stream_behind_bytes = 256 * 1024;         ///< text that a slow reader may leave unread
  absl::Duration stream_stall = absl::Seconds(60);  ///< a write that takes longer ends the stream
  absl::Duration upload_idle = absl::Seconds(15);   ///< without a chunk
  int64_t upload_min_rate = 64 * 1024;              ///< bytes a second, averaged over 10 s

  absl::Duration drain_grace = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(60);
  LogLevel log_level = LogLevel::kInfo;
};

/// Whether gRPC reflection is served.
inline bool ServesReflection(const ServerOptions& options) {
  return options.reflection == "true" ||
         (options.reflection == "auto" && options.access.file.empty());
}

/// The admin address may be reached from other machines only with TLS and tokens: what drains a
/// server and sets its log level must not be anybody's. Probes that know neither ask
/// `health_listen`.
/// Errors: INVALID_ARGUMENT (OPTION_INVALID).
absl::Status CheckAdminAddress(const ServerOptions& options);

/// The limits of a tenant that the access file says nothing of.
TenantLimits DefaultTenantLimits(const ServerOptions& options);

/// Fills in what depends on where the binary lies: the bundled model, the decoder, the clip folder.
void ResolvePaths(ServerOptions& options);

}  // namespace videonsa
