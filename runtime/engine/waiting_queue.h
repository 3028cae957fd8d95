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

/// Rank of a request in seconds: the lowest goes first, in the queue and among prefills. It is the
/// time the request came, less the head start of its priority, and later by a multiple of the time
/// that its prefill takes on an idle worker, so that short prompts do not wait for long ones. It
/// never changes: waiting raises everybody equally, and nobody waits behind work that came later by
/// more than the largest head start and `per_prefill_second` times its own prefill (ageing). All
/// zero is first come, first served.
struct WaitingOrder {
  double interactive_head_start = 90;  ///< before batch work
  double standard_head_start = 60;
  double per_prefill_second = 10;
  double max_setback = 30;  ///< in the queue, of a tenant that has received more than its share

  double RankOf(Priority priority, absl::Duration receive, double prefill_seconds) const;
};

/// Requests whose prompt is ready, in the order in which they should start.
///
/// Among tenants, the one that has received more than its share is set back by the surplus in
/// seconds of predicted work, at most WaitingOrder::max_setback (fair share, start-time fair
/// queueing).
///
/// Owner: engine thread only.
class WaitingQueue {
 public:
  explicit WaitingQueue(const WaitingOrder& order = {}) : order_(order) {}

  void Push(RequestId id, const std::string& tenant, Priority priority, double rank);
  /// Takes a request out, wherever it stands. Requires: it was pushed and not removed.
  void Remove(RequestId id);
  /// Notes that the request's tenant received `seconds` of predicted work.
  void Charge(const std::string& tenant, double seconds);

  /// The first `count` requests in order. Linear in the number of tenants that wait.
  std::vector<RequestId> Front(int count) const;

  int size() const { return static_cast<int>(items_.size()); }
  int size(Priority priority) const { return by_priority_[static_cast<int>(priority)]; }

 private:
  using Ranked = std::pair<double, uint64_t>;  // rank, request id
  struct Tenant {
    std::string name;
    absl::btree_set<Ranked> waiting;
  };
  struct Item {
    int tenant = 0;
    double rank = 0;
    Priority priority = Priority::kStandard;
  };
  int TenantIndex(const std::string& name);
  void ForgetIdleTenants();
  double Setback(size_t tenant) const;  // seconds
  void NoteHead(size_t tenant);

  const WaitingOrder order_;
  std::vector<Tenant> tenants_;
  // By tenant, apart from the rest because every step looks at those of all.
  std::vector<double> services_;    // seconds received, never behind virtual_time_ while waiting
  std::vector<double> head_ranks_;  // of the first that waits; infinite if none does
  absl::flat_hash_map<std::string, int> tenant_index_;
  absl::flat_hash_map<RequestId, Item> items_;
  int by_priority_[3] = {0, 0, 0};
  double virtual_time_ = 0;  // least service of a tenant when it was last charged
};

}  // namespace videonsa
