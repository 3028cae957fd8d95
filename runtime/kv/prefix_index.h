#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/base/hash.h"
#include "runtime/kv/page_pool.h"

namespace videonsa {

/// Finds full pages that earlier requests of the same tenant filled with the very same rows.
///
/// A page's key is a SHA-256 chain: key of the page before it, then everything that decides its
/// rows (tokens, positions, visual content, attention settings). The first link starts from the
/// tenant's salt, so tenants never meet. The index holds one reference to each page it knows.
///
/// Owner: engine thread only.
/// Invariants: I4 an indexed page is full and never written again; I5 a key's parent is indexed as
///             long as the key is.
class PrefixIndex {
 public:
  using Key = Sha256Digest;

  explicit PrefixIndex(PagePool* pool) : pool_(pool) {}
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  /// Pages of the longest known prefix of `keys`, at most `max_pages`; each gets a reference that
  /// the caller owns. Marks them as just used.
  std::vector<int32_t> Acquire(const std::vector<Key>& keys, int max_pages);
  /// How many pages Acquire would return now.
  int Match(const std::vector<Key>& keys, int max_pages) const;
  /// Records that pages[i] holds the rows of keys[i]. Known keys keep their page.
  /// Requires: keys.size() <= pages.size(); the caller holds a reference to every page.
  void Insert(const std::vector<Key>& keys, const std::vector<int32_t>& pages);
  /// Drops least recently used keys that nobody else holds until `pages` pages became free or none
  /// is left; returns how many did.
  int Evict(int pages);
  /// Pages that only the index holds.
  int num_cached() const { return pool_->num_only_indexed(); }
  int size() const { return static_cast<int>(entries_.size()); }

 private:
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    int32_t page = 0;
    Key parent{};
    bool has_parent = false;
    int children = 0;
    std::list<Key>::iterator lru;
  };
  void Remove(const Key& key);

  PagePool* const pool_;
  absl::flat_hash_map<Key, Entry, KeyHash> entries_;
  std::list<Key> lru_;  // least recently used first; a parent stands after its children
};

}  // namespace videonsa
