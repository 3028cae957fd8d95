#include "server/videonsa_server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"
#include "server/admin_service.h"
#include "server/clip_service.h"
#include "server/listen_address.h"
#include "server/result_conversion.h"
#include "server/server_service.h"
#include "server/video_qa_service.h"

namespace videonsa {
namespace {

constexpr int kMaxMessageBytes = 4 * 1024 * 1024;
constexpr int kMaxMetadataBytes = 8 * 1024;
constexpr absl::Duration kSweepEvery = absl::Seconds(30);
constexpr absl::Duration kReloadEvery = absl::Seconds(5);
constexpr absl::Duration kHurry = absl::Seconds(5);
// What the engine needs to end its last answers before the transport cancels them.
constexpr absl::Duration kLastWords = absl::Seconds(2);
constexpr absl::Duration kPoll = absl::Milliseconds(20);

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

std::chrono::system_clock::time_point After(absl::Duration wait) {
  return std::chrono::system_clock::now() + absl::ToChronoMilliseconds(wait);
}

// The reflection library adds itself to every server of a program that links it.
class WithoutReflection : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->erase(
        std::remove_if(plugins->begin(), plugins->end(),
                       [](const auto& plugin) {
                         return dynamic_cast<grpc::reflection::ProtoServerReflectionPlugin*>(
                                    plugin.get()) != nullptr;
                       }),
        plugins->end());
  }
};

// Limits of one connection and one message; the measured reasons are in server/README.md.
void Harden(grpc::ServerBuilder& builder, const ServerOptions& options) {
  const ConnectionOptions& connection = options.connection;
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, connection.max_streams);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             Milliseconds(connection.handshake));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(connection.keepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             Milliseconds(connection.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(connection.idle));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(connection.age));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                             Milliseconds(options.max_deadline + absl::Seconds(30)));
}

absl::Status CannotListen(const std::string& address) {
  return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                   absl::StrCat("address ", address, " cannot be listened on"));
}

}  // namespace

VideonsaServer::VideonsaServer(const ServerOptions& options, const Clock& clock,
                               MetricsRegistry& metrics)
    : options_(options), clock_(clock), metrics_(metrics) {}

absl::StatusOr<std::unique_ptr<VideonsaServer>> VideonsaServer::Start(const ServerOptions& options,
                                                                      const Clock& clock,
                                                                      MetricsRegistry& metrics) {
  VNSA_RETURN_IF_ERROR(CheckAdminAddress(options));
  std::unique_ptr<VideonsaServer> server(new VideonsaServer(options, clock, metrics));
  VNSA_ASSIGN_OR_RETURN(
      server->access_,
      AccessControl::Create(options.access.file, DefaultTenantLimits(options), clock, metrics));
  if (options.access.tls.enabled()) {
    VNSA_ASSIGN_OR_RETURN(server->tls_, TlsFiles::Open(options.access.tls, metrics));
  }
  VNSA_ASSIGN_OR_RETURN(server->clips_, ClipStore::Open(options.clips, clock, metrics));
  server->clips_->SetTenantLimits([access = server->access_.get()](const std::string& tenant) {
    return access->LimitsOf(tenant);
  });
  server->core_ =
      std::make_unique<ServerCore>(options, clock, metrics, *server->access_, *server->clips_);
  if (!options.trace.file.empty()) {
    const bool otlp = options.trace.format == "otlp";
    VNSA_ASSIGN_OR_RETURN(
        server->core_->trace,
        TraceFile::Open(options.trace.file, otlp ? TraceFormat::kOtlp : TraceFormat::kChrome,
                        metrics));
  }
  server->process_metrics_ = ExportProcessMetrics(metrics);
  metrics
      .AddGauge("videonsa_build_info", "The build.",
                {{"version", ServerVersion()}, {"grpc", grpc::Version()}})
      .Set(1);
  VNSA_RETURN_IF_ERROR(server->Listen());
  server->WarnIfOpen();
  server->maintenance_ = std::thread([raw = server.get()] { raw->Maintain(); });
  return server;
}

absl::Status VideonsaServer::Listen() {
  video_qa_ = std::make_unique<VideoQaService>(*core_);
  clip_service_ = std::make_unique<ClipService>(*core_);
  server_service_ = std::make_unique<ServerService>(*core_);
  admin_service_ = std::make_unique<AdminService>(*core_, [this](absl::Duration timeout) {
    BeginDrain();
    const absl::Time limit = absl::Now() + timeout;
    while (absl::Now() < limit && core_->calls.open_questions() > 0) absl::SleepFor(kPoll);
    return core_->calls.open_questions();
  });
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();  // see Open
  VNSA_RETURN_IF_ERROR(Open(
      options_.listen, tls_ == nullptr ? grpc::InsecureServerCredentials() : tls_->Credentials(),
      {video_qa_.get(), clip_service_.get(), server_service_.get()}, public_, port_));
  VNSA_RETURN_IF_ERROR(
      Open(options_.admin_listen, AdminCredentials(), {admin_service_.get()}, admin_, admin_port_));
  VNSA_RETURN_IF_ERROR(
      Open(options_.health_listen, grpc::InsecureServerCredentials(), {}, health_, health_port_));
  SetHealth();
  if (options_.metrics_listen.empty()) return absl::OkStatus();
  VNSA_ASSIGN_OR_RETURN(endpoint_, MetricsEndpoint::Start(options_.metrics_listen, metrics_));
  return absl::OkStatus();
}

absl::Status VideonsaServer::Open(const std::string& address,
                                  std::shared_ptr<grpc::ServerCredentials> credentials,
                                  const std::vector<grpc::Service*>& services,
                                  std::unique_ptr<grpc::Server>& server, int& port) {
  if (address.empty()) return absl::OkStatus();
  grpc::ServerBuilder builder;
  Harden(builder, options_);
  if (services.empty() || !ServesReflection(options_)) {
    builder.SetOption(std::make_unique<WithoutReflection>());
  }
  builder.AddListeningPort(address, std::move(credentials), &port);
  for (grpc::Service* const service : services) builder.RegisterService(service);
  // A listener must have something that takes calls; this answers each with UNIMPLEMENTED.
  if (services.empty()) builder.RegisterCallbackGenericService(&nothing_);
  server = builder.BuildAndStart();
  return server == nullptr || port == 0 ? CannotListen(address) : absl::OkStatus();
}

// Nobody but this machine's own reaches a local address; any other has what the public one has.
std::shared_ptr<grpc::ServerCredentials> VideonsaServer::AdminCredentials() const {
  return tls_ == nullptr || IsLocalAddress(options_.admin_listen)
             ? grpc::InsecureServerCredentials()
             : tls_->Credentials();
}

void VideonsaServer::WarnIfOpen() const {
  if (access_->open() && !IsLocalAddress(options_.listen)) {
    Log(LogLevel::kWarning, "everybody who reaches the public address may do everything",
        {{"listen", options_.listen}, {"option", "access-file"}});
  }
  if (!access_->open() && tls_ == nullptr && !IsLocalAddress(options_.listen)) {
    Log(LogLevel::kWarning, "tokens travel unencrypted to the public address",
        {{"listen", options_.listen}, {"option", "tls-cert"}});
  }
}

int VideonsaServer::metrics_port() const { return endpoint_ == nullptr ? 0 : endpoint_->port(); }

void VideonsaServer::SetHealth() {
  const ServerState state = core_->state();
  for (grpc::Server* const server : {public_.get(), admin_.get(), health_.get()}) {
    if (server == nullptr) continue;
    grpc::HealthCheckServiceInterface* const health = server->GetHealthCheckService();
    const bool ready = state == ServerState::kReady && serving_;
    health->SetServingStatus("", ready);
    health->SetServingStatus("readiness", ready);
    health->SetServingStatus("liveness", state != ServerState::kFailed);
    for (const char* name :
         {"videonsa.v1.VideoQaService", "videonsa.v1.ClipService", "videonsa.v1.ServerService"}) {
      health->SetServingStatus(name, ready);
    }
  }
}

void VideonsaServer::Serve(std::unique_ptr<Runtime> runtime) {
  VNSA_CHECK(runtime_ == nullptr);
  runtime_ = std::move(runtime);
  const ModelFacts& model = runtime_->model();
  metrics_
      .AddGauge("videonsa_model_info", "The model and its attention as served.",
                {{"model", model.name},
                 {"weights_digest", model.weights_digest.substr(0, 16)},
                 {"dtype", model.compute_type},
                 {"attention", SemanticsName(model.semantics)},
                 {"block_tokens", absl::StrCat(model.block_tokens)},
                 {"selected_blocks", absl::StrCat(model.selected_blocks)},
                 {"window_tokens", absl::StrCat(model.window_tokens)}})
      .Set(1);
  metrics_.AddGauge("videonsa_model_load_duration_seconds", "From start to ready.")
      .Set(absl::ToDoubleSeconds(clock_.Now() - core_->start_time));
  core_->SetRuntime(runtime_.get());
  prober_ = std::make_unique<ClipProber>(*clips_, *runtime_);
  core_->MoveTo(ServerState::kReady);
  SetHealth();
}

void VideonsaServer::BeginDrain() {
  if (!core_->MoveTo(ServerState::kDraining)) return;
  Log(LogLevel::kInfo, "draining");
  SetHealth();
  clips_->EndWatches(core_->Admit().status());
}

int VideonsaServer::Drain(absl::Duration grace, absl::Duration timeout, absl::Notification* hurry) {
  VNSA_CHECK(!shut_);
  shut_ = true;
  BeginDrain();
  absl::Notification never;
  absl::Notification& hurried = hurry != nullptr ? *hurry : never;
  hurried.WaitForNotificationWithTimeout(grace);
  // Refuses connections at once, while the engine ends its answers.
  std::thread shutdown([this, timeout] { public_->Shutdown(After(timeout)); });
  const absl::Duration last_words = std::min(kLastWords, timeout / 4);
  absl::Time limit = absl::Now() + timeout - last_words;
  bool short_already = false;
  while (absl::Now() < limit && core_->calls.open_questions() > 0) {
    if (short_already) {
      absl::SleepFor(kPoll);
    } else if (hurried.WaitForNotificationWithTimeout(kPoll)) {
      limit = std::min(limit, absl::Now() + kHurry);
      short_already = true;
    }
  }
  const int cut = runtime_ == nullptr ? 0 : runtime_->Drain(absl::ZeroDuration());
  // All questions have their end; it may still be on its way out.
  limit = absl::Now() + last_words;
  while (absl::Now() < limit && core_->calls.open_questions() > 0) absl::SleepFor(kPoll);
  // What is left may be held open for ever: uploads, which resume, and watches of health.
  grpc_server_cancel_all_calls(public_->c_server());
  shutdown.join();
  for (grpc::Server* const server : {admin_.get(), health_.get()}) {
    if (server != nullptr) server->Shutdown(After(absl::ZeroDuration()));
  }
  return cut;
}

void VideonsaServer::Tick() {
  core_->watchdog.Tick(clock_.Monotonic());
  core_->sessions.Sweep();
  if (core_->trace != nullptr) core_->trace->Flush();
  Runtime* const runtime = core_->runtime();
  if (runtime == nullptr) return;
  const RuntimeStats stats = runtime->Stats();
  if (!stats.failure.ok() && core_->MoveTo(ServerState::kFailed)) {
    Log(LogLevel::kError, "the runtime has failed");
    SetHealth();
  }
  if (const bool serving = stats.workers_serving > 0; serving != serving_) {
    // All workers are being restarted, or one is back.
    serving_ = serving;
    SetHealth();
  }
}

void VideonsaServer::ReloadFiles() {
  access_->Reload().IgnoreError();  // says so itself
  if (tls_ != nullptr) tls_->Reload().IgnoreError();
}

void VideonsaServer::Reconfigure(const ServerOptions& options) {
  SetLogLevel(options.log_level);
  access_->SetDefaults(DefaultTenantLimits(options));
  ReloadFiles();
}

void VideonsaServer::Maintain() {
  absl::Duration swept = clock_.Monotonic();
  absl::Duration reloaded = swept;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Seconds(1))) return;
    }
    Tick();
    if (clock_.Monotonic() - reloaded >= kReloadEvery) {
      reloaded = clock_.Monotonic();
      ReloadFiles();
    }
    if (clock_.Monotonic() - swept < kSweepEvery) continue;
    swept = clock_.Monotonic();
    clips_->Sweep();
  }
}

VideonsaServer::~VideonsaServer() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (maintenance_.joinable()) maintenance_.join();
  // Reverse of the data's way: calls, then the runtime, then the store; metrics last.
  for (std::unique_ptr<grpc::Server>* const server : {&public_, &admin_, &health_}) {
    if (*server != nullptr && !shut_) (*server)->Shutdown(After(absl::ZeroDuration()));
    server->reset();
  }
  if (core_ != nullptr) {
    core_->MoveTo(ServerState::kDraining);  // so that queued estimates end at once
    core_->importer.Stop();
    core_->probing.Stop();
    core_->disk.Stop();
  }
  prober_.reset();
  runtime_.reset();
  admin_service_.reset();
  server_service_.reset();
  clip_service_.reset();
  video_qa_.reset();
  core_.reset();
  clips_.reset();
  tls_.reset();  // the listeners that ask it for certificates are gone
  access_.reset();
  process_metrics_.reset();
  endpoint_.reset();
}

}  // namespace videonsa
