#include "runtime/kv/prefix_index.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/check.h"

namespace videonsa {

size_t PrefixIndex::KeyHash::operator()(const Key& key) const {
  size_t value;
  std::memcpy(&value, key.data(), sizeof(value));
  return value;
}

PrefixIndex::~PrefixIndex() {
  for (const auto& [key, entry] : entries_) {
    pool_->SetIndexed(entry.page, false);
    pool_->Unref(entry.page);
  }
}

int PrefixIndex::Match(const std::vector<Key>& keys, int max_pages) const {
  // A known key's parents are known (I5), so the last known one is found by halving.
  int found = 0, end = std::min<int>(max_pages, static_cast<int>(keys.size()));
  while (found < end) {
    const int middle = found + (end - found) / 2;
    if (entries_.contains(keys[middle])) {
      found = middle + 1;
    } else {
      end = middle;
    }
  }
  return found;
}

std::vector<int32_t> PrefixIndex::Acquire(const std::vector<Key>& keys, int max_pages) {
  const int found = Match(keys, max_pages);
  std::vector<int32_t> pages;
  pages.reserve(found);
  for (int i = 0; i < found; ++i) {
    const Entry& entry = entries_.find(keys[i])->second;
    pool_->Ref(entry.page);
    pages.push_back(entry.page);
  }
  for (int i = found; i-- > 0;) {  // children first, so that parents stand later in the list
    lru_.splice(lru_.end(), lru_, entries_.find(keys[i])->second.lru);
  }
  return pages;
}

void PrefixIndex::Insert(const std::vector<Key>& keys, const std::vector<int32_t>& pages) {
  VNSA_CHECK_LE(keys.size(), pages.size()) << "I4";
  for (size_t i = 0; i < keys.size(); ++i) {
    if (entries_.contains(keys[i])) continue;
    Entry entry;
    entry.page = pages[i];
    if (i > 0) {
      entry.parent = keys[i - 1];
      entry.has_parent = true;
      ++entries_.find(keys[i - 1])->second.children;
    }
    entry.lru = lru_.insert(lru_.end(), keys[i]);
    pool_->Ref(pages[i]);
    pool_->SetIndexed(pages[i], true);
    entries_.emplace(keys[i], entry);
  }
  for (size_t i = keys.size(); i-- > 0;) {
    lru_.splice(lru_.end(), lru_, entries_.find(keys[i])->second.lru);
  }
}

void PrefixIndex::Remove(const Key& key) {
  const auto it = entries_.find(key);
  VNSA_CHECK(it != entries_.end() && it->second.children == 0) << "I5: removed before its children";
  if (it->second.has_parent) {
    const auto parent = entries_.find(it->second.parent);
    VNSA_CHECK(parent != entries_.end()) << "I5: parent is gone";
    --parent->second.children;
  }
  pool_->SetIndexed(it->second.page, false);
  pool_->Unref(it->second.page);
  lru_.erase(it->second.lru);
  entries_.erase(it);
}

int PrefixIndex::Evict(int pages) {
  int freed = 0;
  for (size_t left = lru_.size(); freed < pages && left > 0; --left) {
    const auto oldest = lru_.begin();
    const Entry& entry = entries_.find(*oldest)->second;
    if (entry.children > 0 || pool_->refs(entry.page) > 1) {
      // In use, and with it all its parents, which follow: no later call looks at it soon.
      lru_.splice(lru_.end(), lru_, oldest);
      continue;
    }
    Remove(Key(*oldest));
    ++freed;
  }
  return freed;
}

}  // namespace videonsa
