#include "runtime/kv/session_pins.h"

#include <utility>

#include "runtime/base/check.h"

namespace videonsa {

SessionPins::SessionPins(PagePool* pool, const Limits& limits)
    : pool_(pool), limits_(limits), holders_(pool->capacity(), 0) {}

SessionPins::~SessionPins() {
  while (!oldest_.empty()) Drop(oldest_.front());
}

int SessionPins::TenantPages(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second;
}

int SessionPins::Hold(const Owner& owner, const std::vector<int32_t>& pages) {
  Session next;
  next.owner = owner;
  int& tenant_pages = tenants_[owner.tenant];
  bool open = true;
  for (const int32_t page : pages) {
    const bool known = holders_[page] > 0;
    open = open && (known || (num_pages_ < limits_.pages && tenant_pages < limits_.tenant_pages));
    if (!open) {
      pool_->Unref(page);
      continue;
    }
    if (!known) {
      ++num_pages_;
      ++tenant_pages;
    }
    ++holders_[page];
    ++num_references_;
    next.pages.push_back(page);
  }
  // What both hold is never free in between.
  Drop(owner.session);
  const int held = static_cast<int>(next.pages.size());
  if (owner.count != nullptr) owner.count->store(held, std::memory_order_release);
  if (held == 0) {
    if (TenantPages(owner.tenant) == 0) tenants_.erase(owner.tenant);
    return 0;
  }
  next.age = oldest_.insert(oldest_.end(), owner.session);
  sessions_.emplace(owner.session, std::move(next));
  return held;
}

void SessionPins::Drop(uint64_t session) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  Release(found->second);
  oldest_.erase(found->second.age);
  sessions_.erase(found);
}

void SessionPins::Release(const Session& session) {
  const auto tenant = tenants_.find(session.owner.tenant);
  VNSA_CHECK(tenant != tenants_.end()) << "I14";
  for (const int32_t page : session.pages) {
    VNSA_CHECK_GT(holders_[page], 0) << "I14: page " << page;
    if (--holders_[page] == 0) {
      --num_pages_;
      --tenant->second;
    }
    --num_references_;
    pool_->Unref(page);
  }
  VNSA_CHECK(num_pages_ >= 0 && tenant->second >= 0) << "I14";
  if (tenant->second == 0) tenants_.erase(tenant);
  if (session.owner.count != nullptr) session.owner.count->store(0, std::memory_order_release);
}

bool SessionPins::DropOldest() {
  if (oldest_.empty()) return false;
  Drop(oldest_.front());
  ++num_taken_;
  return true;
}

bool SessionPins::Fits(const std::string& tenant, const std::vector<int32_t>& pages,
                       int more) const {
  for (const int32_t page : pages) more += holders_[page] == 0;
  return more <= limits_.pages - num_pages_ && more <= limits_.tenant_pages - TenantPages(tenant);
}

}  // namespace videonsa
