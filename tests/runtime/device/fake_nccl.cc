// Stands in for NCCL where there are no GPUs: ranks are threads, matrices lie in host memory, and a
// call returns when it is done. GPU 77 does not exist, an all-reduce of 13 values fails.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

struct CUstream_st;
struct Group;
struct ncclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
};

struct Group {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<void*> places;
  int arrived = 0;
  long meetings = 0;
  bool aborted = false;
};

namespace {

constexpr int kAbortedResult = 3, kUint8 = 1, kFloat32 = 7;

// `all_here` runs on the last rank that comes, before anybody leaves.
template <typename Function>
int Meet(ncclComm* comm, void* place, const Function& all_here) {
  Group& group = *comm->group;
  std::unique_lock lock(group.mutex);
  if (group.aborted) return kAbortedResult;
  group.places[static_cast<size_t>(comm->rank)] = place;
  if (++group.arrived == static_cast<int>(group.places.size())) {
    all_here(group);
    group.arrived = 0;
    ++group.meetings;
    group.changed.notify_all();
    return 0;
  }
  const long before = group.meetings;
  group.changed.wait(lock, [&] { return group.meetings != before || group.aborted; });
  return 0;
}

}  // namespace

extern "C" {

int ncclCommInitAll(ncclComm** comms, int num_ranks, const int* gpus) {
  if (std::find(gpus, gpus + num_ranks, 77) != gpus + num_ranks) return 2;
  const auto group = std::make_shared<Group>();
  group->places.resize(static_cast<size_t>(num_ranks));
  for (int rank = 0; rank < num_ranks; ++rank) comms[rank] = new ncclComm{group, rank};
  return 0;
}

int ncclCommDestroy(ncclComm* comm) {
  delete comm;
  return 0;
}

int ncclCommAbort(ncclComm* comm) {
  {
    const std::lock_guard lock(comm->group->mutex);
    comm->group->aborted = true;
    comm->group->changed.notify_all();
  }
  delete comm;
  return 0;
}

int ncclCommGetAsyncError(ncclComm*, int* result) {
  *result = 0;
  return 0;
}

int ncclAllReduce(const void*, void* to, size_t count, int type, int op, ncclComm* comm,
                  CUstream_st*) {
  if (count == 13 || type != kFloat32 || op != 0) return 1;
  return Meet(comm, to, [&](Group& group) {
    std::vector<float> sums(count, 0.0f);
    for (void* place : group.places) {
      for (size_t i = 0; i < count; ++i) sums[i] += static_cast<const float*>(place)[i];
    }
    for (void* place : group.places) {
      std::copy(sums.begin(), sums.end(), static_cast<float*>(place));
    }
  });
}

int ncclBroadcast(const void*, void* to, size_t count, int type, int root, ncclComm* comm,
                  CUstream_st*) {
  if (type != kUint8) return 1;
  return Meet(comm, to, [&](Group& group) {
    const void* const from = group.places[static_cast<size_t>(root)];
    for (void* place : group.places) {
      if (place != from) std::memcpy(place, from, count);
    }
  });
}

int ncclGroupStart() { return 0; }
int ncclGroupEnd() { return 0; }
const char* ncclGetErrorString(int result) {
  return result == 1 ? "unhandled cuda error" : "unhandled system error";
}
}
