#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"

namespace videonsa {

/// Requests whose prompt is ready, in the order in which they should start.
///
/// A request is ranked by its virtual arrival: the time it came minus the head start of its
/// priority. Waiting therefore raises everybody equally, and nobody waits behind work that came
/// more than the largest head start after it (ageing). Among tenants, the one that has received
/// more than its share is set back by the surplus in seconds of predicted work, at most
/// kMaxSetback (fair share, start-time fair queueing).
///
/// Owner: engine thread only.
class WaitingQueue {
 public:
  static constexpr double kInteractiveHeadStart = 30;  ///< seconds before batch work
  static constexpr double kStandardHeadStart = 15;
  static constexpr double kMaxSetback = 30;  ///< seconds

  void Push(RequestId id, const std::string& tenant, Priority priority, absl::Duration now);
  /// Takes a request out, wherever it stands. Requires: it was pushed and not removed.
  void Remove(RequestId id);
  /// Notes that the request's tenant received `seconds` of predicted work.
  void Charge(const std::string& tenant, double seconds);

  /// The first `count` requests in order. Linear in the number of tenants that wait.
  std::vector<RequestId> Front(int count) const;

  int size() const { return static_cast<int>(items_.size()); }
  int size(Priority priority) const { return by_priority_[static_cast<int>(priority)]; }

 private:
  using Ranked = std::pair<double, uint64_t>;  // virtual arrival, request id
  struct Tenant {
    std::string name;
    double service = 0;       // seconds received, never behind virtual_time_ while waiting
    double head_arrival = 0;  // of waiting.begin(), if it is not empty
    absl::btree_set<Ranked> waiting;
  };
  struct Item {
    int tenant = 0;
    double arrival = 0;
    Priority priority = Priority::kStandard;
  };
  int TenantIndex(const std::string& name);
  void ForgetIdleTenants();
  double Setback(const Tenant& tenant) const;  // seconds

  std::vector<Tenant> tenants_;
  absl::flat_hash_map<std::string, int> tenant_index_;
  absl::flat_hash_map<RequestId, Item> items_;
  int by_priority_[3] = {0, 0, 0};
  double virtual_time_ = 0;  // least service of a tenant when it was last charged
};

}  // namespace videonsa
