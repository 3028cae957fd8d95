#include "server/call_context.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/ascii.h"
#include "server/random_id.h"
#include "server/server_core.h"

namespace videonsa {
namespace {

constexpr size_t kMaxIdBytes = 64;
constexpr absl::Duration kLeastMargin = absl::Milliseconds(20);
constexpr absl::Duration kMostMargin = absl::Milliseconds(250);

bool WellFormed(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxIdBytes && std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

// The one value of `key`; empty if there is none or more than one.
absl::string_view OneValue(const grpc::CallbackServerContext& context, const char* key) {
  const auto [begin, end] = context.client_metadata().equal_range(key);
  if (begin == end || std::next(begin) != end) return {};
  return {begin->second.data(), begin->second.size()};
}

CallerProof ProofOf(const grpc::CallbackServerContext& context) {
  CallerProof proof;
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  for (auto it = begin; it != end; ++it) {
    proof.authorization.emplace_back(it->second.data(), it->second.size());
  }
  const std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  if (peer == nullptr || !peer->IsPeerAuthenticated()) return proof;
  for (const char* property : {GRPC_X509_SAN_PROPERTY_NAME, GRPC_X509_CN_PROPERTY_NAME}) {
    for (const grpc::string_ref& name : peer->FindPropertyValues(property)) {
      proof.certificate_names.emplace_back(name.data(), name.size());
    }
  }
  return proof;
}

void Admit(ServerCore& core, Method method, const grpc::CallbackServerContext& context,
           CallContext& call) {
  absl::StatusOr<Identity> identity = core.access.Authorise(ProofOf(context), InfoOf(method));
  if (!identity.ok()) {
    call.refusal = identity.status();
    return;
  }
  absl::StatusOr<std::shared_ptr<void>> slot = core.quotas.Enter(identity->tenant, InfoOf(method));
  if (!slot.ok()) {
    call.refusal = slot.status();
    if (InfoOf(method).question) core.requests.Refused(slot.status());
    return;
  }
  call.tenant = std::move(identity->tenant);
  call.scopes = identity->scopes;
  call.slot = *std::move(slot);
}

}  // namespace

CallContext MakeCallContext(ServerCore& core, Method method,
                            const grpc::CallbackServerContext& context) {
  CallContext call;
  call.method = method;
  call.received = core.clock.Now();
  call.received_at = core.clock.Monotonic();
  if (const absl::string_view id = OneValue(context, "x-request-id"); WellFormed(id)) {
    call.request_id = std::string(id);
  } else {
    call.request_id = RandomId();
  }
  call.trace = MakeTraceContext(OneValue(context, "traceparent"));

  absl::Duration left = core.options.default_deadline;
  if (context.deadline() != std::chrono::system_clock::time_point::max()) {
    left = absl::FromChrono(context.deadline() - std::chrono::system_clock::now());
    left -= std::clamp(left / 50, kLeastMargin, kMostMargin);
  }
  call.deadline = call.received_at + std::min(left, core.options.max_deadline);
  Admit(core, method, context, call);
  return call;
}

}  // namespace videonsa
