#include "runtime/kv/session_pins.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace videonsa {
namespace {

using Limits = SessionPins::Limits;

// Another reference to every page, as Hold takes over.
std::vector<int32_t> Refs(PagePool& pool, const std::vector<int32_t>& pages) {
  for (const int32_t page : pages) pool.Ref(page);
  return pages;
}

TEST(SessionPins, HoldsUpToTheCeilingsAndDropsTheRest) {
  PagePool pool(16);
  SessionPins pins(&pool, Limits{.pages = 5, .tenant_pages = 3});
  const std::vector<int32_t> pages = *pool.TryAllocate(8);
  auto count = std::make_shared<std::atomic<int>>(0);
  EXPECT_EQ(pins.Hold({1, "a", count}, Refs(pool, {pages[0], pages[1], pages[2], pages[3]})), 3);
  EXPECT_EQ(count->load(), 3);
  EXPECT_EQ(pool.refs(pages[2]), 2);
  EXPECT_EQ(pool.refs(pages[3]), 1);
  EXPECT_EQ(pins.Hold({2, "b", nullptr}, Refs(pool, {pages[4], pages[5], pages[6]})), 2);
  EXPECT_EQ(pins.num_pages(), 5);
  EXPECT_FALSE(pins.Fits("b", {}, 1));
  EXPECT_TRUE(pins.Fits("b", {pages[4]}, 0));
  pins.Drop(1);
  EXPECT_EQ(count->load(), 0);
  EXPECT_EQ(pool.refs(pages[0]), 1);
  EXPECT_TRUE(pins.Fits("b", {}, 1));
  EXPECT_FALSE(pins.Fits("b", {}, 2));  // of the tenant
  pins.Drop(1);                         // unknown by now
  for (const int32_t page : pages) pool.Unref(page);
}

TEST(SessionPins, APageOfTwoSessionsCountsOnce) {
  PagePool pool(8);
  SessionPins pins(&pool, Limits{.pages = 2, .tenant_pages = 2});
  const std::vector<int32_t> pages = *pool.TryAllocate(2);
  EXPECT_EQ(pins.Hold({1, "a", nullptr}, Refs(pool, pages)), 2);
  EXPECT_EQ(pins.Hold({2, "a", nullptr}, Refs(pool, pages)), 2);
  EXPECT_EQ(pins.num_pages(), 2);
  EXPECT_EQ(pins.num_references(), 4);
  pins.Drop(1);
  EXPECT_EQ(pins.num_pages(), 2);
  for (const int32_t page : pages) pool.Unref(page);
}

TEST(SessionPins, GrowsInPlaceAndYieldsTheLongestUnused) {
  PagePool pool(8);
  SessionPins pins(&pool, Limits{.pages = 8, .tenant_pages = 8});
  const std::vector<int32_t> pages = *pool.TryAllocate(5);
  pins.Hold({1, "a", nullptr}, Refs(pool, {pages[0], pages[1]}));
  pins.Hold({2, "a", nullptr}, Refs(pool, {pages[3]}));
  EXPECT_EQ(pins.Hold({1, "a", nullptr}, Refs(pool, {pages[0], pages[1], pages[2]})), 3);
  EXPECT_EQ(pool.refs(pages[0]), 2);
  ASSERT_TRUE(pins.DropOldest());
  EXPECT_FALSE(pins.holds(pages[3]));
  EXPECT_TRUE(pins.holds(pages[0]));
  ASSERT_TRUE(pins.DropOldest());
  EXPECT_FALSE(pins.DropOldest());
  EXPECT_EQ(pins.num_taken(), 2);
  EXPECT_EQ(pins.num_references(), 0);
  for (const int32_t page : pages) pool.Unref(page);
  EXPECT_EQ(pool.num_free(), 8);
}

TEST(SessionPins, AccountsAgreeAfterRandomEvents) {
  PagePool pool(64);
  std::mt19937 random(7);
  const Limits limits{.pages = 20, .tenant_pages = 12};
  const std::vector<int32_t> pages = *pool.TryAllocate(64);  // tenant of a page: by its half
  {
    SessionPins pins(&pool, limits);
    for (int event = 0; event < 20000; ++event) {
      const uint64_t session = 1 + random() % 9;
      const int tenant = static_cast<int>(session % 2);
      if (random() % 3 != 0) {
        std::vector<int32_t> wanted;
        const int first = tenant * 32 + static_cast<int>(random() % 3) * 8;
        for (int i = 0; i < static_cast<int>(random() % 9); ++i) wanted.push_back(pages[first + i]);
        pins.Hold({session, tenant == 0 ? "a" : "b", nullptr}, Refs(pool, wanted));
      } else if (random() % 4 == 0) {
        pins.DropOldest();
      } else {
        pins.Drop(session);
      }
      int held = 0, of_a = 0;
      int64_t references = 0;
      for (int i = 0; i < 64; ++i) {
        references += pool.refs(pages[i]) - 1;
        held += pool.refs(pages[i]) > 1;
        of_a += pool.refs(pages[i]) > 1 && i < 32;
        ASSERT_EQ(pins.holds(pages[i]), pool.refs(pages[i]) > 1);
      }
      ASSERT_EQ(held, pins.num_pages());
      ASSERT_EQ(references, pins.num_references());
      ASSERT_LE(held, limits.pages);
      ASSERT_LE(of_a, limits.tenant_pages);
      ASSERT_LE(held - of_a, limits.tenant_pages);
    }
  }
  for (const int32_t page : pages) EXPECT_EQ(pool.refs(page), 1);
  for (const int32_t page : pages) pool.Unref(page);
}

}  // namespace
}  // namespace videonsa
