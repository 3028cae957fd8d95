#include "runtime/engine/waiting_queue.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

// Tenants are forgotten when this many are known and none of their requests waits.
constexpr size_t kMaxIdleTenants = 1024;

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
  tenant.service = virtual_time_;
  tenants_.push_back(std::move(tenant));
  tenant_index_.emplace(name, index);
  return index;
}

void WaitingQueue::ForgetIdleTenants() {
  std::vector<Tenant> kept;
  std::vector<int> moved(tenants_.size(), -1);
  for (size_t i = 0; i < tenants_.size(); ++i) {
    if (tenants_[i].waiting.empty()) continue;
    moved[i] = static_cast<int>(kept.size());
    kept.push_back(std::move(tenants_[i]));
  }
  tenants_ = std::move(kept);
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
  if (owner.waiting.empty()) owner.service = std::max(owner.service, virtual_time_);
  owner.waiting.emplace(item.rank, id.value);
  owner.head_rank = owner.waiting.begin()->first;
  ++by_priority_[static_cast<int>(priority)];
  VNSA_CHECK(items_.emplace(id, item).second) << "request " << id << " waits twice";
}

void WaitingQueue::Remove(RequestId id) {
  const auto it = items_.find(id);
  VNSA_CHECK(it != items_.end()) << "request " << id << " does not wait";
  const Item item = it->second;
  Tenant& owner = tenants_[item.tenant];
  VNSA_CHECK_EQ(owner.waiting.erase(Ranked(item.rank, id.value)), 1u);
  if (!owner.waiting.empty()) owner.head_rank = owner.waiting.begin()->first;
  --by_priority_[static_cast<int>(item.priority)];
  items_.erase(it);
}

void WaitingQueue::Charge(const std::string& tenant, double seconds) {
  Tenant& owner = tenants_[TenantIndex(tenant)];
  owner.service = std::max(owner.service, virtual_time_) + seconds;
  double least = owner.service;
  for (const Tenant& other : tenants_) {
    if (!other.waiting.empty()) least = std::min(least, other.service);
  }
  virtual_time_ = std::max(virtual_time_, least);
}

double WaitingQueue::Setback(const Tenant& tenant) const {
  return std::min(std::max(0.0, tenant.service - virtual_time_), order_.max_setback);
}

std::vector<RequestId> WaitingQueue::Front(int count) const {
  // Whoever is among the first `count` belongs to a tenant whose first request is among the first
  // `count` first requests: only those tenants are looked at further.
  std::vector<std::pair<double, int>> heads;  // rank, tenant
  heads.reserve(tenants_.size());
  for (size_t i = 0; i < tenants_.size(); ++i) {
    const Tenant& tenant = tenants_[i];
    if (tenant.waiting.empty()) continue;
    heads.emplace_back(tenant.head_rank + Setback(tenant), static_cast<int>(i));
  }
  const size_t num_tenants = std::min<size_t>(count, heads.size());
  std::nth_element(heads.begin(), heads.begin() + num_tenants, heads.end());
  std::vector<Ranked> best;
  for (size_t i = 0; i < num_tenants; ++i) {
    const Tenant& tenant = tenants_[heads[i].second];
    const double setback = Setback(tenant);
    int taken = 0;
    for (auto it = tenant.waiting.begin(); it != tenant.waiting.end() && taken < count; ++it) {
      best.emplace_back(it->first + setback, it->second);
      ++taken;
    }
  }
  const size_t wanted = std::min<size_t>(count, best.size());
  std::partial_sort(best.begin(), best.begin() + wanted, best.end());
  std::vector<RequestId> ids;
  ids.reserve(wanted);
  for (size_t i = 0; i < wanted; ++i) ids.push_back(RequestId{best[i].second});
  return ids;
}

}  // namespace videonsa
