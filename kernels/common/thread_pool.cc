#include "kernels/common/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace videonsa {
namespace {

// About 20 microseconds of waiting before a thread goes to sleep: longer than the gap between two
// loops of a layer, shorter than anything a person or a neighbour would notice.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable wake;
  // Written by the caller before `generation` is raised, read by workers after they saw it.
  const std::function<void(int64_t, int)>* body = nullptr;
  int64_t num_tasks = 0;
  std::atomic<int64_t> next_task{0};
  std::atomic<uint64_t> generation{0};
  std::atomic<int> busy{0};  // workers that have not finished this generation
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;

  void Drain(int thread) {
    for (;;) {
      const int64_t task = next_task.fetch_add(1, std::memory_order_relaxed);
      if (task >= num_tasks) return;
      (*body)(task, thread);
    }
  }

  void Work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation.load(std::memory_order_acquire) == seen;
           ++spin) {
        Pause();
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      Drain(thread);
      busy.fetch_sub(1, std::memory_order_release);
    }
  }

  void Start(int64_t tasks, const std::function<void(int64_t, int)>* function) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      body = function;
      num_tasks = tasks;
      next_task.store(0, std::memory_order_relaxed);
      busy.store(static_cast<int>(threads.size()), std::memory_order_relaxed);
      generation.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
  }
};

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads), state_(std::make_unique<State>()) {
  for (int thread = 1; thread < num_threads; ++thread) {
    state_->threads.emplace_back([this, thread] { state_->Work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->Start(0, nullptr);
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::ParallelFor(int64_t num_tasks, const std::function<void(int64_t, int)>& body) {
  if (num_tasks <= 0) return;
  if (state_->threads.empty() || num_tasks == 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  state_->Start(num_tasks, &body);
  state_->Drain(0);
  for (int spin = 0; state_->busy.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace videonsa
