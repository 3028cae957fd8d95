#include "runtime/executor/rank_team.h"

#include "runtime/base/check.h"

namespace videonsa {

RankTeam::RankTeam(int num_ranks) : num_ranks_(num_ranks) {
  VNSA_CHECK_GE(num_ranks, 1);
  for (int rank = 1; rank < num_ranks; ++rank) threads_.emplace_back([this, rank] { Loop(rank); });
}

RankTeam::~RankTeam() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void RankTeam::Run(absl::FunctionRef<void(int rank)> body) {
  {
    absl::MutexLock lock(&mutex_);
    VNSA_CHECK_EQ(running_, 0) << "two callers";
    body_ = &body;
    running_ = num_ranks_ - 1;
    ++calls_;
  }
  body(0);
  absl::MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
  mutex_.Await(absl::Condition(&done));
  body_ = nullptr;
}

void RankTeam::Loop(int rank) {
  int64_t seen = 0;
  while (true) {
    const absl::FunctionRef<void(int)>* body = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      const auto called = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return closed_ || calls_ != seen;
      };
      mutex_.Await(absl::Condition(&called));
      if (calls_ == seen) return;
      seen = calls_;
      body = body_;
    }
    (*body)(rank);
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace videonsa
