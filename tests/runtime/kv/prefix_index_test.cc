#include "runtime/kv/prefix_index.h"

#include <gtest/gtest.h>

#include <random>

namespace videonsa {
namespace {

using Key = PrefixIndex::Key;

// A chain of keys that depends on `name` from its first link on.
std::vector<Key> Chain(const std::string& name, int length) {
  std::vector<Key> keys;
  for (int i = 0; i < length; ++i) keys.push_back(Sha256Of(name + std::to_string(i)));
  return keys;
}

void Unref(PagePool& pool, const std::vector<int32_t>& pages) {
  for (const int32_t page : pages) pool.Unref(page);
}

TEST(PrefixIndex, FindsTheLongestKnownPrefix) {
  PagePool pool(8);
  PrefixIndex index(&pool);
  const std::vector<int32_t> pages = *pool.TryAllocate(3);
  index.Insert(Chain("a", 3), pages);
  EXPECT_EQ(index.Match(Chain("a", 5), 9), 3);
  EXPECT_EQ(index.Match(Chain("a", 5), 2), 2);
  EXPECT_EQ(index.Match(Chain("b", 5), 9), 0);
  const std::vector<int32_t> shared = index.Acquire(Chain("a", 2), 9);
  EXPECT_EQ(shared, std::vector<int32_t>(pages.begin(), pages.begin() + 2));
  EXPECT_EQ(pool.refs(pages[0]), 3);
  EXPECT_EQ(pool.refs(pages[2]), 2);
  Unref(pool, shared);
  Unref(pool, pages);
}

TEST(PrefixIndex, KeepsTheFirstPageOfAKnownKey) {
  PagePool pool(8);
  PrefixIndex index(&pool);
  const std::vector<int32_t> first = *pool.TryAllocate(2);
  const std::vector<int32_t> second = *pool.TryAllocate(2);
  index.Insert(Chain("a", 2), first);
  index.Insert(Chain("a", 2), second);
  EXPECT_EQ(index.size(), 2);
  EXPECT_EQ(pool.refs(second[0]), 1);
  EXPECT_EQ(index.Acquire(Chain("a", 1), 1).front(), first[0]);
}

TEST(PrefixIndex, EvictsLeastRecentlyUsedLeavesThatNobodyHolds) {
  PagePool pool(4);
  PrefixIndex index(&pool);
  std::vector<int32_t> a = *pool.TryAllocate(2);
  std::vector<int32_t> b = *pool.TryAllocate(2);
  index.Insert(Chain("a", 2), a);
  index.Insert(Chain("b", 2), b);
  EXPECT_EQ(index.Evict(4), 0);  // both are still held
  Unref(pool, a);
  Unref(pool, b);
  Unref(pool, index.Acquire(Chain("a", 2), 2));  // a is fresher now
  EXPECT_EQ(index.Evict(1), 1);
  EXPECT_EQ(index.Match(Chain("b", 2), 2), 1);  // the leaf of b went first
  EXPECT_EQ(index.Match(Chain("a", 2), 2), 2);
  EXPECT_EQ(index.Evict(9), 3);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(index.size(), 0);
}

TEST(PrefixIndex, RandomUseKeepsThePoolExact) {
  std::mt19937 random(7);
  PagePool pool(32);
  {
    PrefixIndex index(&pool);
    std::vector<std::vector<int32_t>> held;
    for (int round = 0; round < 20000; ++round) {
      const std::vector<Key> keys = Chain(std::string(1, 'a' + random() % 6), 1 + random() % 8);
      std::vector<int32_t> pages = index.Acquire(keys, static_cast<int>(keys.size()));
      const int missing = static_cast<int>(keys.size() - pages.size());
      if (missing > pool.num_free()) index.Evict(missing - pool.num_free());
      if (auto fresh = pool.TryAllocate(missing)) {
        pages.insert(pages.end(), fresh->begin(), fresh->end());
        index.Insert(keys, pages);
        held.push_back(pages);
      } else {
        Unref(pool, pages);
      }
      while (held.size() > 4 || (!held.empty() && random() % 3 == 0)) {
        const size_t victim = random() % held.size();
        Unref(pool, held[victim]);
        held.erase(held.begin() + victim);
      }
      if (held.empty()) {
        ASSERT_EQ(pool.num_used(), index.size());
      }
    }
    for (const auto& pages : held) Unref(pool, pages);
    EXPECT_EQ(pool.num_used(), index.num_cached());
  }
  EXPECT_EQ(pool.num_used(), 0);
}

}  // namespace
}  // namespace videonsa
