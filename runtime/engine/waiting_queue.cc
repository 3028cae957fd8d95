#include "runtime/engine/waiting_queue.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

// Tenants are forgotten when this many are known and none of their requests waits.
constexpr size_t kMaxIdleTenants = 1024;

double HeadStart(Priority priority) {
  switch (priority) {
    case Priority::kInteractive:
      return WaitingQueue::kInteractiveHeadStart;
    case Priority::kStandard:
      return WaitingQueue::kStandardHeadStart;
    case Priority::kBatch:
      return 0;
  }
  return 0;
}

}  // namespace

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

void WaitingQueue::Push(RequestId id, const std::string& tenant, Priority priority,
                        absl::Duration now) {
  Item item;
  item.tenant = TenantIndex(tenant);
  item.arrival = absl::ToDoubleSeconds(now) - HeadStart(priority);
  item.priority = priority;
  Tenant& owner = tenants_[item.tenant];
  if (owner.waiting.empty()) owner.service = std::max(owner.service, virtual_time_);
  owner.waiting.emplace(item.arrival, id.value);
  ++by_priority_[static_cast<int>(priority)];
  VNSA_CHECK(items_.emplace(id, item).second) << "request " << id << " waits twice";
}

void WaitingQueue::Remove(RequestId id) {
  const auto it = items_.find(id);
  VNSA_CHECK(it != items_.end()) << "request " << id << " does not wait";
  const Item item = it->second;
  VNSA_CHECK_EQ(tenants_[item.tenant].waiting.erase(Ranked(item.arrival, id.value)), 1u);
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

std::vector<RequestId> WaitingQueue::Front(int count) const {
  std::vector<Ranked> best;
  best.reserve(tenants_.size());
  for (const Tenant& tenant : tenants_) {
    const double surplus = std::max(0.0, tenant.service - virtual_time_);
    const double setback = std::min(surplus, kMaxSetback);
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
