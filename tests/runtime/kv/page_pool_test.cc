#include "runtime/kv/page_pool.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/kv/kv_budget.h"
#include "runtime/kv/page_table.h"

namespace videonsa {
namespace {

TEST(PagePool, GivesEachPageOnceAndAllOrNothing) {
  PagePool pool(4);
  auto three = pool.TryAllocate(3);
  ASSERT_TRUE(three.has_value());
  EXPECT_EQ(std::set<int32_t>(three->begin(), three->end()).size(), 3u);
  EXPECT_FALSE(pool.TryAllocate(2).has_value());
  EXPECT_EQ(pool.num_free(), 1);
  auto last = pool.TryAllocate(1);
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(pool.num_used(), 4);
  EXPECT_TRUE(pool.TryAllocate(0).has_value());
}

TEST(PagePool, FreesAPageWithItsLastReference) {
  PagePool pool(1);
  const int32_t page = pool.TryAllocate(1)->front();
  pool.Ref(page);
  pool.Unref(page);
  EXPECT_EQ(pool.num_free(), 0);
  pool.Unref(page);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(PagePoolDeathTest, CatchesDoubleFree) {
  PagePool pool(2);
  const int32_t page = pool.TryAllocate(1)->front();
  pool.Unref(page);
  EXPECT_DEATH(pool.Unref(page), "I2");
}

TEST(PageTable, GivesPagesBackWhenDestroyedAndWhenMovedOver) {
  PagePool pool(4);
  {
    PageTable table(&pool, *pool.TryAllocate(3), 0);
    PageTable other(&pool, *pool.TryAllocate(1), 0);
    other = std::move(table);
    EXPECT_EQ(pool.num_used(), 3);
    EXPECT_EQ(other.size(), 3);
  }
  EXPECT_EQ(pool.num_used(), 0);
}

TEST(ByteBudget, RefusesWhatDoesNotFit) {
  ByteBudget budget(10);
  EXPECT_TRUE(budget.TryReserve(7));
  EXPECT_FALSE(budget.TryReserve(4));
  EXPECT_TRUE(budget.TryReserve(3));
  budget.Release(10);
  EXPECT_EQ(budget.used(), 0);
}

TEST(PagesFor, RoundsUp) {
  EXPECT_EQ(PagesFor(0, 64), 0);
  EXPECT_EQ(PagesFor(1, 64), 1);
  EXPECT_EQ(PagesFor(64, 64), 1);
  EXPECT_EQ(PagesFor(65, 64), 2);
}

}  // namespace
}  // namespace videonsa
