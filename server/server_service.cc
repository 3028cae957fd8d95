#include "server/server_service.h"

#include <unistd.h>

#include <fstream>

#include "server/proto_time.h"
#include "server/result_conversion.h"
#include "server/unary_call.h"

namespace videonsa {
namespace {

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

v1::GetServerStatusResponse::State StateOf(ServerState state) {
  switch (state) {
    case ServerState::kLoading:
      return v1::GetServerStatusResponse::STATE_LOADING;
    case ServerState::kReady:
      return v1::GetServerStatusResponse::STATE_READY;
    case ServerState::kDraining:
      return v1::GetServerStatusResponse::STATE_DRAINING;
    case ServerState::kFailed:
      return v1::GetServerStatusResponse::STATE_FAILED;
  }
  return v1::GetServerStatusResponse::STATE_UNSPECIFIED;
}

v1::GetServerStatusResponse StatusOf(const ServerCore& core) {
  v1::GetServerStatusResponse out;
  out.set_state(StateOf(core.state()));
  out.set_version(ServerVersion());
  out.set_commit(VIDEONSA_COMMIT);
  *out.mutable_start_time() = ToProto(core.start_time);
  out.set_resident_bytes(ResidentBytes());
  const Runtime* const runtime = core.runtime();
  if (runtime == nullptr) return out;
  const RuntimeStats stats = runtime->Stats();
  out.set_running(stats.running);
  out.set_waiting(stats.waiting);
  out.set_kv_pages_used(stats.kv_pages_used);
  out.set_kv_pages_total(stats.kv_pages_total);
  out.set_decoder_processes(stats.decoder_processes);
  out.set_preemptions(stats.preemptions);
  out.set_workers(stats.workers);
  out.set_workers_serving(stats.workers_serving);
  if (!stats.failure.ok()) out.set_message(std::string(stats.failure.message()));
  if (!stats.cost_model.empty()) {
    v1::CostModel& cost = *out.mutable_cost_model();
    cost.set_steps(stats.cost_model_steps);
    cost.set_error_ratio(stats.cost_model_error);
    cost.set_description(stats.cost_model);
  }
  v1::Device& device = *out.add_devices();
  const std::string& name = runtime->model().device;
  device.set_name(name);
  device.set_kind(name == "cpu" ? "cpu" : "cuda");
  device.set_threads(stats.cpu_threads);
  device.set_compute_type(runtime->model().compute_type);
  device.set_memory_total_bytes(int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE));
  device.set_memory_used_bytes(out.resident_bytes());
  return out;
}

}  // namespace

grpc::ServerUnaryReactor* ServerService::GetModel(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return ServeUnary<v1::GetModelRequest>(
      core_, Method::kGetModel, nullptr, context, request, response,
      [this](const CallContext&,
             const v1::GetModelRequest&) -> absl::StatusOr<v1::GetModelResponse> {
        const Runtime* const runtime = core_.runtime();
        if (runtime == nullptr) return core_.Admit().status();
        v1::GetModelResponse out;
        *out.mutable_model() = ToProto(runtime->model(), core_.options);
        return out;
      });
}

grpc::ServerUnaryReactor* ServerService::GetServerStatus(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return ServeUnary<v1::GetServerStatusRequest>(
      core_, Method::kGetServerStatus, nullptr, context, request, response,
      [this](const CallContext&, const v1::GetServerStatusRequest&) {
        return absl::StatusOr<v1::GetServerStatusResponse>(StatusOf(core_));
      });
}

}  // namespace videonsa
