#include "kernels/common/thread_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace videonsa {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceInManyLoops) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int loop = 0; loop < 500; ++loop) {
      const int tasks = loop % 37;
      std::vector<int> count(tasks, 0);  // unsynchronised on purpose: visible after ParallelFor
      pool.ParallelFor(tasks, [&](int64_t task, int thread) {
        ASSERT_LT(thread, threads);
        count[task]++;
      });
      for (int c : count) ASSERT_EQ(c, 1);
    }
  }
}

}  // namespace
}  // namespace videonsa
