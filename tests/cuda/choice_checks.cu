#include <algorithm>
#include <numeric>

#include "kernels/nsa/nsa_stages.cuh"
#include "kernels/reference/released_nsa.h"
#include "tests/cuda/gpu_check.h"

namespace videonsa::gpu_check {
namespace {

// Few different numbers, zeros among them: ties everywhere.
std::vector<float> TiedScores(std::mt19937& rng, size_t count, int kinds) {
  std::vector<float> scores(count);
  for (float& x : scores) {
    x = static_cast<float>(rng() % static_cast<unsigned>(kinds)) * (kinds > 50 ? 0.37f : 4.0f);
  }
  return scores;
}

std::vector<int> SortedChoice(const float* scores, int own, int count) {
  std::vector<int> order(static_cast<size_t>(own));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(std::min(own, count - 1)));
  order.push_back(own);
  std::sort(order.begin(), order.end());
  order.resize(static_cast<size_t>(count), -1);
  return order;
}

enum class Choice { kCausal, kLogs, kNetwork };

void CheckOne(int last_own, int count, int kinds, Choice what, Verdicts& verdicts,
              std::mt19937& rng) {
  constexpr int kRows = 40, kKvHeads = 2;
  const int stride = (last_own + 64) / 64 * 64;
  std::vector<float> host = TiedScores(rng, static_cast<size_t>(kRows) * kKvHeads * stride, kinds);
  if (what == Choice::kLogs) {
    for (float& x : host) x = 4.0f - x * 0.7f;  // on both sides of 0
  }
  const bool network = what == Choice::kNetwork;
  const DeviceArray<float> scores(host);
  const std::vector<uint8_t> marks(static_cast<size_t>(kRows) * kKvHeads, 1);
  DeviceArray<uint8_t> steep(marks);
  DeviceArray<int32_t> blocks(static_cast<size_t>(kRows) * kKvHeads * count);
  blocks.Fill(0x7F);
  cuda::BlockChoice choice;
  choice.scores = scores.get();
  choice.blocks_stride = stride;
  choice.num_kv_heads = kKvHeads;
  choice.row_begin = std::max(0, last_own * 64 - kRows / 2);  // rows on both sides of a border
  choice.end = kRows;
  choice.count = count;
  choice.blocks = blocks.get();
  if (what == Choice::kLogs) {
    choice.steep = steep.get();
    choice.logs = true;
  }
  Must(network ? cuda::LaunchNetworkChoice(choice, nullptr)
               : cuda::LaunchCausalChoice(choice, nullptr),
       "choice");
  const std::vector<int32_t> got = blocks.Get();
  int wrong = 0;
  for (int i = 0; i < kRows * kKvHeads; ++i) {
    const int own = (choice.row_begin + i / kKvHeads) / 64;
    const float* row = &host[static_cast<size_t>(i) * stride];
    std::vector<int> want;
    if (network) {
      std::vector<float> all(row, row + own);
      all.push_back(16.0f);
      want = reference::NetworkChoice(all, count);
    } else {
      want = SortedChoice(row, own, count);
    }
    wrong += !std::equal(want.begin(), want.end(), got.begin() + int64_t{i} * count);
  }
  char name[100];
  std::snprintf(name, sizeof(name), "%s choice of %d among %d, %d kinds of scores",
                network                 ? "network"
                : what == Choice::kLogs ? "causal, by logarithms,"
                                        : "causal",
                count, last_own + 1, kinds);
  verdicts.Add(wrong == 0, name, Text("%g of %g lists differ", wrong, kRows * kKvHeads));
}

}  // namespace

void CheckChoice(Verdicts& verdicts) {
  std::mt19937 rng(17);
  for (Choice what : {Choice::kCausal, Choice::kNetwork, Choice::kLogs}) {
    for (int last_own : {0, 1, 3, 31, 33, 63, 64, 127, 300, 1000, 2047, 3000}) {
      for (int kinds : {1, 3, 9, 100000}) {
        CheckOne(last_own, last_own % 2 == 0 ? 4 : 32, kinds, what, verdicts, rng);
      }
    }
  }
}

}  // namespace videonsa::gpu_check
