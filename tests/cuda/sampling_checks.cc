#include <algorithm>

#include "kernels/cpu/sample_token.h"
#include "kernels/sampling/cuda_sampling.h"
#include "tests/cuda/gpu_check.h"

namespace videonsa::gpu_check {
namespace {

constexpr int kRows = 24;

struct SampleCase {
  int vocab = 0;
  std::vector<float> logits;
  std::vector<int32_t> seen, suppressed;
  std::vector<CudaSampleSettings> settings;
};

SampleCase MakeRows(int vocab, int kinds, std::mt19937& rng) {
  SampleCase c;
  c.vocab = vocab;
  for (int i = 0; i < 20 && i < vocab; ++i) {
    const int id = i * std::max(1, vocab / 20);
    if (id < vocab) c.seen.push_back(id);
  }
  c.suppressed = {vocab / 2, vocab / 3};
  c.settings.resize(kRows);
  for (int r = 0; r < kRows; ++r) {
    std::vector<float> row = Normal(rng, static_cast<size_t>(vocab), 3.0f);
    if (r % 2 == 0) {  // ties
      for (float& x : row) x = std::round(x * static_cast<float>(kinds)) / 7.0f;
    }
    if (r == 5) row[0] = NAN;
    if (r == 7) std::fill(row.begin(), row.end(), -INFINITY);
    c.logits.insert(c.logits.end(), row.begin(), row.end());
    CudaSampleSettings& s = c.settings[static_cast<size_t>(r)];
    if (r % 3 != 0) s.temperature = 0.3f + 0.1f * static_cast<float>(r % 9);
    if (r % 4 == 1) s.top_k = r * 7;
    if (r % 5 < 3) s.top_p = 0.5f + 0.02f * static_cast<float>(r);
    if (r % 7 == 2) s.min_p = 0.03f;
    if (r % 2 == 1) s.repetition_penalty = 1.3f;
    s.num_seen = static_cast<int32_t>(c.seen.size());
    s.num_suppressed = r % 3 == 1 ? 2 : 0;
    s.uniform = UniformOf(99, static_cast<uint64_t>(r));
  }
  return c;
}

// What the CPU samples from a copy of row r.
int32_t OnCpu(SampleCase& c, int r) {
  std::vector<float> row(c.logits.begin() + int64_t{r} * c.vocab,
                         c.logits.begin() + int64_t{r + 1} * c.vocab);
  std::vector<int32_t> scratch(row.size());
  const CudaSampleSettings& s = c.settings[static_cast<size_t>(r)];
  SampleParams p;
  p.logits = row.data();
  p.vocab = c.vocab;
  p.seen = c.seen.data();
  p.num_seen = s.num_seen;
  p.repetition_penalty = s.repetition_penalty;
  p.suppressed = c.suppressed.data();
  p.num_suppressed = s.num_suppressed;
  p.temperature = s.temperature;
  p.top_p = s.top_p;
  p.top_k = s.top_k;
  p.min_p = s.min_p;
  p.uniform = s.uniform;
  p.scratch = scratch.data();
  return SampleToken(p);
}

void CheckRows(int vocab, int kinds, Verdicts& verdicts, std::mt19937& rng) {
  SampleCase c = MakeRows(vocab, kinds, rng);
  const DeviceArray<int32_t> seen(c.seen), suppressed(c.suppressed);
  for (CudaSampleSettings& s : c.settings) s.seen = seen.get(), s.suppressed = suppressed.get();
  const DeviceArray<CudaSampleSettings> settings(c.settings);
  const DeviceArray<float> logits(c.logits);
  const DeviceArray<int32_t> ids(kRows);
  const DeviceArray<float> log_probs(kRows);
  CudaSampleParams p;
  p.logits = logits.get();
  p.logits_stride = vocab;
  p.settings = settings.get();
  p.ids = ids.get();
  p.log_probs = log_probs.get();
  p.num_rows = kRows;
  p.vocab = vocab;
  Must(LaunchSample(p, nullptr), "LaunchSample");
  const std::vector<int32_t> got = ids.Get();
  const std::vector<float> logs = log_probs.Get();
  int wrong = 0;
  double worst = 0;
  for (int r = 0; r < kRows; ++r) {
    const int32_t want = OnCpu(c, r);
    wrong += got[static_cast<size_t>(r)] != want;
    if (r == 5 || r == 7) continue;  // not finite
    const float* row = &c.logits[static_cast<size_t>(r) * vocab];
    const double log_prob = row[want] - LogSumExp(row, vocab);
    worst = std::max(worst, std::abs(logs[static_cast<size_t>(r)] - log_prob));
  }
  verdicts.Add(wrong == 0 && worst < 1e-4, "sample " + Text("%g ids", vocab),
               Text("%g of %g rows differ from the CPU, log probabilities off by %.0e", wrong,
                    kRows, worst));
}

}  // namespace

void CheckSampling(Verdicts& verdicts) {
  std::mt19937 rng(19);
  for (int vocab : {3, 512, 2048, 5000, 152064}) {
    if (vocab > most_tokens) continue;
    CheckRows(vocab, 3, verdicts, rng);
    CheckRows(vocab, 500, verdicts, rng);
  }
}

}  // namespace videonsa::gpu_check
