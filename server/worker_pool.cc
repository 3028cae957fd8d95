#include "server/worker_pool.h"

namespace videonsa {

WorkerPool::WorkerPool(int threads, size_t queue_capacity) : queue_(queue_capacity) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] {
      while (std::optional<std::function<void()>> work = queue_.Pop()) (*work)();
    });
  }
}

void WorkerPool::Stop() {
  queue_.Close();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool WorkerPool::TrySubmit(std::function<void()> work) { return queue_.TryPush(std::move(work)); }

}  // namespace videonsa
