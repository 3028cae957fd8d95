#include "runtime/engine/waiting_queue.h"

#include <algorithm>
#include <limits>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

// Tenants are forgotten when this many are known and none of their requests waits.
constexpr size_t kMaxIdleTenants = 1024;
constexpr double kNobody = std::numeric_limits<double>::infinity();

}  // namespace

double WaitingOrder::RankOf(Priority priority, absl::Duration receive,
                            double prefill_seconds) const {
  const double head_start = priority == Priority::kInteractive ? interactive_head_start
                            : priority == Priority::kStandard  ? standard_head_start
                                                               : 0;
  return absl::ToDoubleSeconds(receive) - head_start + per_prefill_second * prefill_seconds;
}

int WaitingQueue::TenantIndex(const std::string& name) {
  const auto it = tenant_index_.find(name);
  if (it != tenant_index_.end()) return it->second;
  if (tenants_.size() >= kMaxIdleTenants + items_.size()) ForgetIdleTenants();
  const int index = static_cast<int>(tenants_.size());
  Tenant tenant;
  tenant.name = name;
  tenants_.push_back(std::move(tenant));
  services_.push_back(virtual_time_);
  head_ranks_.push_back(kNobody);
  tenant_index_.emplace(name, index);
  return index;
}

void WaitingQueue::ForgetIdleTenants() {
  std::vector<Tenant> kept;
  std::vector<int> moved(tenants_.size(), -1);
  for (size_t i = 0; i < tenants_.size(); ++i) {
    if (tenants_[i].waiting.empty()) continue;
    moved[i] = static_cast<int>(kept.size());
    services_[kept.size()] = services_[i];
    head_ranks_[kept.size()] = head_ranks_[i];
    kept.push_back(std::move(tenants_[i]));
  }
  tenants_ = std::move(kept);
  services_.resize(tenants_.size());
  head_ranks_.resize(tenants_.size());
  tenant_index_.clear();
  for (size_t i = 0; i < tenants_.size(); ++i) {
    tenant_index_.emplace(tenants_[i].name, static_cast<int>(i));
  }
  for (auto& [id, item] : items_) item.tenant = moved[item.tenant];
}

void WaitingQueue::Push(RequestId id, const std::string& tenant, Priority priority, double rank) {
  Item item;
  item.tenant = TenantIndex(tenant);
  item.rank = rank;
  item.priority = priority;
  Tenant& owner = tenants_[item.tenant];
  double& service = services_[item.tenant];
  if (owner.waiting.empty()) service = std::max(service, virtual_time_);
  owner.waiting.emplace(item.rank, id.value);
  NoteHead(item.tenant);
  ++by_priority_[static_cast<int>(priority)];
  VNSA_CHECK(items_.emplace(id, item).second) << "request " << id << " waits twice";
}

void WaitingQueue::Remove(RequestId id) {
  const auto it = items_.find(id);
  VNSA_CHECK(it != items_.end()) << "request " << id << " does not wait";
  const Item item = it->second;
  Tenant& owner = tenants_[item.tenant];
  VNSA_CHECK_EQ(owner.waiting.erase(Ranked(item.rank, id.value)), 1u);
  NoteHead(item.tenant);
  --by_priority_[static_cast<int>(item.priority)];
  items_.erase(it);
}

void WaitingQueue::NoteHead(size_t tenant) {
  const auto& waiting = tenants_[tenant].waiting;
  head_ranks_[tenant] = waiting.empty() ? kNobody : waiting.begin()->first;
}

void WaitingQueue::Charge(const std::string& tenant, double seconds) {
  double& service = services_[TenantIndex(tenant)];
  service = std::max(service, virtual_time_) + seconds;
  double least = service;
  for (size_t i = 0; i < services_.size(); ++i) {
    least = std::min(least, head_ranks_[i] < kNobody ? services_[i] : kNobody);
  }
  virtual_time_ = std::max(virtual_time_, least);
}

double WaitingQueue::Setback(size_t tenant) const {
  return std::min(std::max(0.0, services_[tenant] - virtual_time_), order_.max_setback);
}

std::vector<RequestId> WaitingQueue::Front(int count) const {
  // Whoever is among the first `count` belongs to a tenant whose first request is among the first
  // `count` first requests: only those tenants are looked at further.
  const size_t most = static_cast<size_t>(std::max(count, 0));
  std::vector<std::pair<double, size_t>> heads;  // rank, tenant; a heap, the last one on top
  heads.reserve(most + 1);
  for (size_t i = 0; i < head_ranks_.size() && most > 0; ++i) {
    const std::pair<double, size_t> head(head_ranks_[i] + Setback(i), i);
    if (head.first == kNobody || (heads.size() == most && head >= heads.front())) continue;
    heads.push_back(head);
    std::push_heap(heads.begin(), heads.end());
    if (heads.size() <= most) continue;
    std::pop_heap(heads.begin(), heads.end());
    heads.pop_back();
  }
  std::vector<Ranked> best;
  for (const auto& [rank, tenant] : heads) {
    const double setback = Setback(tenant);
    size_t taken = 0;
    for (const Ranked& waiting : tenants_[tenant].waiting) {
      if (taken++ == most) break;
      best.emplace_back(waiting.first + setback, waiting.second);
    }
  }
  const size_t wanted = std::min(most, best.size());
  std::partial_sort(best.begin(), best.begin() + wanted, best.end());
  std::vector<RequestId> ids;
  ids.reserve(wanted);
  for (size_t i = 0; i < wanted; ++i) ids.push_back(RequestId{best[i].second});
  return ids;
}

}  // namespace videonsa
