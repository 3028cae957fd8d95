// Collectives over all GPUs in view, one thread a rank, as workers call them: sums, gathered rows,
// both inside a recorded graph, and the end of a group. Needs libnccl.so.2 in the library path.
#include <cstdio>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/device/collective.h"
#include "runtime/device/cuda_device.h"
#include "runtime/device/cuda_graph.h"

namespace videonsa {
namespace {

constexpr int64_t kRows = 96, kCols = 3584;

int g_passed = 0, g_failed = 0;

void Expect(bool ok, const std::string& what) {
  ++(ok ? g_passed : g_failed);
  std::printf("%s %s\n", ok ? "ok  " : "FAIL", what.c_str());
}

// One rank's stream, matrix and a pinned copy of it.
struct Rank {
  std::unique_ptr<CudaDevice> device;
  DeviceBuffer buffer;
  PinnedBuffer host;
  TensorView x;

  bool Open(int ordinal) {
    auto opened = CudaDevice::Create(ordinal);
    if (!opened.ok()) return false;
    device = *std::move(opened);
    const int64_t bytes = kRows * kCols * 4;
    auto memory = device->Allocate(bytes, "a matrix");
    auto pinned = PinnedBuffer::Create(bytes);
    if (!memory.ok() || !pinned.ok()) return false;
    buffer = *std::move(memory);
    host = *std::move(pinned);
    x = MatrixView(buffer.data(), DType::kF32, kRows, kCols);
    return true;
  }
  float* values() { return reinterpret_cast<float*>(host.data()); }
  void Set(float value) {
    for (int64_t i = 0; i < kRows * kCols; ++i) values()[i] = value + static_cast<float>(i % 64);
    device->CopyIn(buffer.data(), host.data(), kRows * kCols * 4);
  }
  bool Get() {
    device->CopyOut(host.data(), buffer.data(), kRows * kCols * 4);
    return device->Synchronize().ok();
  }
};

// What every rank's thread does; writes what went wrong.
void RunRank(Rank& rank, Collective& collective, std::string& wrong) {
  rank.device->Bind();
  const int ranks = collective.num_ranks(), own = collective.rank();
  const float sum = static_cast<float>(ranks * (ranks - 1) / 2);
  const auto check_sums = [&](const char* what, float offset, float factor) {
    if (!rank.Get()) wrong = std::string(what) + ": " + rank.device->status().ToString();
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const float want = factor * (static_cast<float>(ranks) * static_cast<float>(i % 64) + offset);
      if (rank.values()[i] != want && wrong.empty()) {
        wrong = std::string(what) + ": element " + std::to_string(i) + " is " +
                std::to_string(rank.values()[i]) + ", expected " + std::to_string(want);
      }
    }
  };
  rank.Set(static_cast<float>(own));
  collective.AllReduceSum(rank.x);
  check_sums("all-reduce", sum, 1);
  // Twice recorded work: the sum of sums.
  const std::unique_ptr<CudaGraph> graph = CudaGraph::Record(*rank.device, [&] {
    collective.AllReduceSum(rank.x);
    collective.AllGather(rank.x, kRows);
  });
  if (graph == nullptr) {
    wrong = "the calls cannot be recorded";
    return;
  }
  rank.Set(static_cast<float>(own));
  graph->Launch();
  graph->Launch();
  check_sums("recorded", sum, static_cast<float>(ranks));
  rank.Set(static_cast<float>(1000 * own));
  collective.AllGather(rank.x, kRows);
  if (!rank.Get()) wrong = rank.device->status().ToString();
  for (int source = 0; source < ranks; ++source) {
    const RankShare rows = ShareOf(kRows, source, ranks);
    for (int64_t i = rows.begin * kCols; i < rows.end * kCols; ++i) {
      if (rank.values()[i] != static_cast<float>(1000 * source) + static_cast<float>(i % 64)) {
        wrong = "all-gather: element " + std::to_string(i);
      }
    }
  }
  if (!collective.status().ok()) wrong = collective.status().ToString();
}

int Main() {
  const absl::StatusOr<int> count = CountCudaDevices();
  if (!count.ok()) {
    std::printf("FAIL %s\n", count.status().ToString().c_str());
    return 1;
  }
  std::vector<int> gpus(static_cast<size_t>(*count));
  std::iota(gpus.begin(), gpus.end(), 0);
  auto group = CreateNcclCollectives(gpus);
  Expect(group.ok(),
         "NCCL joins " + std::to_string(*count) + " GPUs: " + group.status().ToString());
  if (!group.ok()) return 1;
  std::vector<Rank> ranks(gpus.size());
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!ranks[i].Open(gpus[i])) {
      std::printf("FAIL GPU %d cannot be opened\n", gpus[i]);
      return 1;
    }
    (*group)->rank(static_cast<int>(i)).Attach(*ranks[i].device);
  }
  std::vector<std::string> wrong(ranks.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks.size(); ++i) {
    threads.emplace_back(
        [&, i] { RunRank(ranks[i], (*group)->rank(static_cast<int>(i)), wrong[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < ranks.size(); ++i) {
    Expect(wrong[i].empty(), "rank " + std::to_string(i) + ": " + wrong[i]);
  }
  // Everybody but the last waits for a sum that never comes, until the group ends.
  for (size_t i = 0; i + 1 < ranks.size(); ++i) {
    (*group)->rank(static_cast<int>(i)).AllReduceSum(ranks[i].x);
  }
  const absl::Status lost = MakeError(absl::StatusCode::kUnavailable, "DEVICE_LOST", "gone");
  (*group)->Abort(lost);
  for (size_t i = 0; i < ranks.size(); ++i) {
    Collective& own = (*group)->rank(static_cast<int>(i));
    own.AllReduceSum(ranks[i].x);
    Expect(ranks[i].device->Synchronize().ok() && own.status() == lost,
           "rank " + std::to_string(i) + " stops waiting");
  }
  std::printf("%d passed, %d failed\n", g_passed, g_failed);
  return g_failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace videonsa

int main() { return videonsa::Main(); }
