#include "server/call_context.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/ascii.h"
#include "server/random_id.h"

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

}  // namespace

CallContext MakeCallContext(grpc::CallbackServerContext& context, const Clock& clock,
                            const ServerOptions& options) {
  CallContext call;
  call.tenant = "default";
  call.received = clock.Now();
  call.received_at = clock.Monotonic();
  const auto& metadata = context.client_metadata();
  if (const auto found = metadata.find("x-request-id"); found != metadata.end()) {
    const absl::string_view id(found->second.data(), found->second.size());
    if (WellFormed(id)) call.request_id = std::string(id);
  }
  if (call.request_id.empty()) call.request_id = RandomId();
  context.AddInitialMetadata("x-request-id", call.request_id);

  absl::Duration left = options.default_deadline;
  if (context.deadline() != std::chrono::system_clock::time_point::max()) {
    left = absl::FromChrono(context.deadline() - std::chrono::system_clock::now());
    left -= std::clamp(left / 50, kLeastMargin, kMostMargin);
  }
  call.deadline = call.received_at + std::min(left, options.max_deadline);
  return call;
}

}  // namespace videonsa
