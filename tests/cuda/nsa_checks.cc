#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/nsa/cuda_nsa.h"
#include "kernels/nsa/nsa_params.h"
#include "kernels/reference/causal_nsa.h"
#include "kernels/reference/released_nsa.h"
#include "tests/cuda/paged_case.h"

namespace videonsa::gpu_check {
namespace {

struct NsaTypes {
  DType kv;
  DType q;
  DType out;
};
constexpr NsaTypes kTypes[] = {{DType::kBF16, DType::kBF16, DType::kBF16},
                               {DType::kBF16, DType::kF32, DType::kF32},
                               {DType::kF32, DType::kF32, DType::kF32}};

// Relative distance of scores below which rounding may decide a choice: a logit of size x is known
// to about x 2^-9 with bf16 operands, to about x 2^-22 in fp32.
double CloseScores(DType kv, double largest_logit = 1) {
  return kv == DType::kBF16 ? std::max(5e-2, largest_logit / 128)
                            : std::max(1e-4, largest_logit * 1e-5);
}

std::string Label(const char* what, const reference::AttentionCase& c, const NsaTypes& t) {
  char line[160];
  std::snprintf(line, sizeof(line), "%s len %d heads %d/%d x %d blocks %d window %d kv %s out %s",
                what, c.len, c.num_q_heads, c.num_kv_heads, c.head_dim, c.block_count, c.window,
                Name(t.kv), Name(t.out));
  return line;
}

struct NsaResult {
  std::vector<float> out;
  std::vector<int32_t> blocks;
  std::vector<unsigned long long> tally;  // selected pairs by KV head, saturated rows
  std::vector<unsigned long long> weight;
  std::vector<unsigned long long> gates;
};

// Blocks chosen for one row, per KV head.
std::vector<std::vector<int>> BlocksOf(const std::vector<int32_t>& blocks, int row, int kv_heads,
                                       int count, bool keep_empty) {
  std::vector<std::vector<int>> lists(static_cast<size_t>(kv_heads));
  for (int h = 0; h < kv_heads; ++h) {
    for (int i = 0; i < count; ++i) {
      const int b = blocks[(static_cast<size_t>(row) * kv_heads + h) * count + i];
      if (b >= 0 || keep_empty) lists[static_cast<size_t>(h)].push_back(b);
    }
  }
  return lists;
}

struct Choices {
  int same = 0, all = 0, wrong = 0;

  // Sets are compared; a difference counts as wrong where scores are clearly apart.
  void Compare(std::vector<int> got, std::vector<int> want, double margin, double close) {
    std::sort(got.begin(), got.end());
    std::sort(want.begin(), want.end());
    ++all;
    same += got == want;
    wrong += got != want && margin > close;
  }
  std::string Share() const { return Text(", choices %g of %g equal, %g wrong", same, all, wrong); }
};

NsaResult RunCausal(const PagedCase& paged, const reference::AttentionCase& c,
                    const NsaTypes& types, int chunk) {
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  Matrix q(types.q, c.len, width, width + 24), out(types.out, c.len, width, width + 8);
  q.Set(c.q);
  const DeviceArray<float> gates(c.g);
  const DeviceArray<uint8_t> is_vision(c.is_vision);
  DeviceArray<int32_t> blocks(static_cast<size_t>(c.len) * c.num_kv_heads * c.block_count);
  const size_t num_blocks = static_cast<size_t>(c.len + 63) / 64;
  DeviceArray<unsigned long long> tally(static_cast<size_t>(c.num_kv_heads) + 1);
  DeviceArray<unsigned long long> weight(num_blocks), gate_sums(3);
  tally.Fill(0), weight.Fill(0), gate_sums.Fill(0);
  for (int row = 0; row < c.len; row += chunk) {
    CudaCausalNsaParams p;
    p.kv = paged.kv;
    p.row_begin = row;
    p.row_end = std::min(c.len, row + chunk);
    const size_t bytes = CudaCausalNsaScratchBytes(paged.kv, c.num_q_heads, p.row_end - row,
                                                   p.row_end, c.block_count);
    DeviceArray<uint8_t> scratch(bytes);
    scratch.Fill(0xFF);
    p.q = q.Rows(row);
    p.out = out.Rows(row);
    p.gates = gates.get() + int64_t{row} * c.num_q_heads * 3;
    p.gates_stride = c.num_q_heads * 3;
    p.is_vision = is_vision.get() + row;
    p.num_q_heads = c.num_q_heads;
    p.selected_blocks = c.block_count;
    p.window = c.window;
    p.scale = static_cast<float>(c.Scale());
    p.blocks = blocks.get() + int64_t{row} * c.num_kv_heads * c.block_count;
    p.tally = {tally.get(), nullptr, weight.get(), gate_sums.get()};
    p.scratch = {scratch.get(), bytes};
    Must(LaunchCausalNsa(p, nullptr), "LaunchCausalNsa");
    Must(cudaDeviceSynchronize(), "LaunchCausalNsa");
  }
  return {out.Get(), blocks.Get(), tally.Get(), weight.Get(), gate_sums.Get()};
}

// Sums over all rows that follow from the inputs alone.
std::string CheckTally(const reference::AttentionCase& c, const NsaResult& r, bool& ok) {
  double gates[3] = {}, rows = 0;
  for (int row = 0; row < c.len; ++row) {
    if (!c.is_vision[static_cast<size_t>(row)]) continue;
    ++rows;
    for (int i = 0; i < 3 * c.num_q_heads; ++i) {
      gates[i % 3] += reference::Gate(c.g[static_cast<size_t>(row) * c.num_q_heads * 3 + i]);
    }
  }
  const double unit = std::pow(2.0, kCudaTallyShift);
  double worst = 0, weight = 0;
  for (int b = 0; b < 3; ++b) {
    worst = std::max(worst, std::abs(r.gates[static_cast<size_t>(b)] / unit - gates[b]) /
                                std::max(1.0, gates[b]));
  }
  for (unsigned long long w : r.weight) weight += static_cast<double>(w) / unit;
  const double want = rows * c.num_kv_heads;
  ok &= worst < 1e-5 && std::abs(weight - want) <= 1e-5 * std::max(1.0, want);
  return Text(", gate sums off %.0e, weight %.2f of %g", worst, weight, want);
}

constexpr double kLeastLog = -103.28;  // of fp32's smallest number

// Of the chosen earlier blocks of one KV head.
double LightestLog(const reference::CausalRow& row, size_t kv_head) {
  double lightest = 0;
  for (int block : row.blocks[kv_head]) {
    if (block + 1 > static_cast<int>(row.log_weights[kv_head].size())) continue;  // the own one
    lightest = std::min(lightest, row.log_weights[kv_head][static_cast<size_t>(block)]);
  }
  return lightest;
}

void CheckCausal(const CaseShape& shape, const NsaTypes& types, Verdicts& verdicts,
                 std::mt19937& rng) {
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase paged(c, types.kv, rng);
  const NsaResult all = RunCausal(paged, c, types, c.len);
  const NsaResult chunked = RunCausal(paged, c, types, 101);
  bool ok = std::memcmp(all.out.data(), chunked.out.data(), all.out.size() * 4) == 0 &&
            all.blocks == chunked.blocks && all.tally == chunked.tally &&
            all.weight == chunked.weight && all.gates == chunked.gates;
  std::string detail = ok ? "chunks equal" : "CHUNKS DIFFER";
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  std::vector<float> got;
  std::vector<double> want;
  Choices choices;
  int below_fp32 = 0;
  for (int row : SampleRows(c.len, shape.steepness > 1 ? 40 : 14, rng)) {
    const auto lists = BlocksOf(all.blocks, row, c.num_kv_heads, c.block_count, false);
    if (c.is_vision[static_cast<size_t>(row)]) {
      const reference::CausalRow free = reference::CausalNsaRow(c, row);
      for (size_t h = 0; h < lists.size(); ++h) {
        const double close = CloseScores(types.kv, free.largest_logit[h]);
        const bool decided = reference::ChoiceDecided(c, free, static_cast<int>(h), close);
        choices.Compare(lists[h], free.blocks[h], decided ? INFINITY : 0, close);
        choices.wrong += !std::is_sorted(lists[h].begin(), lists[h].end());
        below_fp32 += std::isfinite(free.margin[h]) && LightestLog(free, h) < kLeastLog;
      }
    }
    const reference::CausalRow given = reference::CausalNsaRow(c, row, &lists);
    want.insert(want.end(), given.out.begin(), given.out.end());
    got.insert(got.end(), all.out.begin() + static_cast<int64_t>(row * width),
               all.out.begin() + static_cast<int64_t>((row + 1) * width));
  }
  unsigned long long pairs = 0;
  for (int i = 0; i < c.len; ++i) {
    if (!c.is_vision[static_cast<size_t>(i)]) continue;
    pairs += static_cast<unsigned long long>((std::min(c.block_count, i / 64 + 1) - 1) * 64 +
                                             i % 64 + 1);
  }
  for (int h = 0; h < c.num_kv_heads; ++h) ok &= all.tally[static_cast<size_t>(h)] == pairs;
  detail += CheckTally(c, all, ok);
  const double error = RelativeError(got, want);
  ok &= error <= Tolerance(types.kv) && choices.wrong == 0;
  if (shape.steepness > 1) {
    ok &= below_fp32 > choices.all / 4;
    detail += Text(", %g lists reach below fp32", below_fp32);
  }
  verdicts.Add(ok, Label(shape.steepness > 1 ? "causal_nsa, steep," : "causal_nsa", c, types),
               Text("rel %.2e, ", error) + detail + choices.Share());
}

// Rows from `first` on; the others' are as they were.
NsaResult RunReleased(const PagedCase& paged, const reference::AttentionCase& c,
                      const NsaTypes& types, int first) {
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  const int kept = reference::KeptBlocks(c.block_count);
  Matrix q(types.q, c.len, width), out(types.out, c.len, width, width + 8);
  q.Set(c.q);
  const DeviceArray<float> gates(c.g);
  const DeviceArray<uint8_t> is_vision(c.is_vision);
  DeviceArray<int32_t> blocks(static_cast<size_t>(c.len) * 4 * kept);
  DeviceArray<unsigned long long> tally(5), gate_sums(3);
  DeviceArray<unsigned long long> weight(static_cast<size_t>(c.len + 63) / 64);
  tally.Fill(0), weight.Fill(0), gate_sums.Fill(0);
  const size_t bytes = CudaReleasedNsaScratchBytes(paged.kv, c.len, c.block_count);
  DeviceArray<uint8_t> scratch(bytes);
  scratch.Fill(0xFF);
  CudaReleasedNsaParams p;
  p.kv = paged.kv;
  p.kv.k_pooled = p.kv.v_pooled = nullptr;
  p.q = q.Rows(first);
  p.out = out.Rows(first);
  p.gates = gates.get() + int64_t{first} * c.num_q_heads * 3;
  p.gates_stride = c.num_q_heads * 3;
  p.is_vision = is_vision.get();
  p.row_begin = first;
  p.num_rows = c.len;
  p.selected_blocks = c.block_count;
  p.window = c.window;
  p.scale = static_cast<float>(c.Scale());
  p.blocks = blocks.get() + int64_t{first} * 4 * kept;
  p.tally = {tally.get(), tally.get() + 4, weight.get(), gate_sums.get()};
  p.scratch = {scratch.get(), bytes};
  Must(LaunchReleasedNsa(p, nullptr), "LaunchReleasedNsa");
  return {out.Get(), blocks.Get(), tally.Get(), weight.Get(), gate_sums.Get()};
}

// Whether the rows that need no others are the same without them.
bool LastRowsEqual(const PagedCase& paged, const reference::AttentionCase& c, const NsaTypes& types,
                   const NsaResult& all) {
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  const size_t chosen = size_t{4} * static_cast<size_t>(reference::KeptBlocks(c.block_count));
  for (const int first : {FirstFreeReleasedRow(c.len), c.len - 1}) {
    if (first < FirstFreeReleasedRow(c.len)) continue;
    const NsaResult last = RunReleased(paged, c, types, first);
    const size_t row = static_cast<size_t>(first);
    if (!std::equal(all.blocks.begin() + static_cast<int64_t>(row * chosen), all.blocks.end(),
                    last.blocks.begin() + static_cast<int64_t>(row * chosen)) ||
        std::memcmp(all.out.data() + row * width, last.out.data() + row * width,
                    (all.out.size() - row * width) * 4) != 0) {
      return false;
    }
  }
  return true;
}

void CheckReleased(const CaseShape& shape, const NsaTypes& types, Verdicts& verdicts,
                   std::mt19937& rng) {
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase paged(c, types.kv, rng);
  const NsaResult r = RunReleased(paged, c, types, 0);
  const int kept = reference::KeptBlocks(c.block_count);
  reference::ReleasedNsa oracle(c);
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  std::vector<float> got;
  std::vector<double> want;
  Choices choices;
  std::vector<int> rows = SampleRows(c.len, 10, rng);
  for (int row = 0; row < c.len && rows.size() < 14; ++row) {  // some text rows for sure
    if (!c.is_vision[static_cast<size_t>(row)] && rng() % 20 == 0) rows.push_back(row);
  }
  for (int row : rows) {
    const auto lists = BlocksOf(r.blocks, row, 4, kept, true);
    const reference::ReleasedRow free = oracle.Row(row);
    for (size_t h = 0; h < 4; ++h) {
      choices.Compare(lists[h], free.blocks[h], free.margin[h], CloseScores(types.kv));
    }
    const reference::ReleasedRow given = oracle.Row(row, &lists);
    want.insert(want.end(), given.out.begin(), given.out.end());
    got.insert(got.end(), r.out.begin() + static_cast<int64_t>(row * width),
               r.out.begin() + static_cast<int64_t>((row + 1) * width));
  }
  unsigned long long pairs[4] = {};
  for (int row = 0; row < c.len; ++row) {
    if (!c.is_vision[static_cast<size_t>(row)]) continue;
    const auto lists = BlocksOf(r.blocks, row, 4, kept, false);
    for (size_t h = 0; h < 4; ++h) {
      for (int b : lists[h]) pairs[h] += static_cast<unsigned>(b == row / 64 ? row % 64 + 1 : 64);
    }
  }
  bool ok = std::equal(pairs, pairs + 4, r.tally.begin());
  std::string detail = ok ? "pairs equal" : "PAIRS DIFFER";
  const bool alone = LastRowsEqual(paged, c, types, r);
  ok &= alone;
  detail += alone ? ", last rows alone equal" : ", LAST ROWS ALONE DIFFER";
  detail += CheckTally(c, r, ok);
  const double error = RelativeError(got, want);
  ok &= error <= Tolerance(types.kv) && choices.wrong == 0;
  verdicts.Add(ok, Label("released_nsa", c, types),
               Text("rel %.2e, ", error) + detail + choices.Share());
}

}  // namespace

void CheckCausalNsa(Verdicts& verdicts) {
  std::mt19937 rng(11);
  for (const NsaTypes& types : kTypes) {
    for (const CaseShape& shape :
         {CaseShape{1, 28, 4, 128, 4, 32}, CaseShape{64, 28, 4, 128, 4, 256},
          CaseShape{65, 6, 2, 64, 3, 32}, CaseShape{700, 28, 4, 128, 4, 256},
          CaseShape{1300, 6, 2, 64, 3, 32}, CaseShape{1000, 28, 4, 16, 8, 70},
          CaseShape{640, 4, 2, 16, 2, 1}, CaseShape{900, 16, 4, 80, 5, 100},
          CaseShape{500, 16, 1, 64, 1, 64}, CaseShape{330, 6, 6, 32, 3, 40},
          CaseShape{4500, 28, 4, 128, 32, 256}, CaseShape{1500, 4, 4, 64, 4, 32, 256},
          CaseShape{2000, 4, 4, 128, 6, 64, 256}, CaseShape{1500, 4, 4, 16, 5, 100, 256},
          CaseShape{3000, 28, 4, 64, 16, 64, 256}}) {
      if (shape.len <= most_tokens) CheckCausal(shape, types, verdicts, rng);
    }
  }
}

void CheckReleasedNsa(Verdicts& verdicts) {
  std::mt19937 rng(13);
  for (const NsaTypes& types : kTypes) {
    for (const CaseShape& shape :
         {CaseShape{40, 28, 4, 128, 4, 32}, CaseShape{64, 28, 4, 16, 4, 32},
          CaseShape{4170, 28, 4, 16, 4, 32}, CaseShape{450, 28, 4, 16, 4, 32},
          CaseShape{960, 28, 4, 128, 4, 256}, CaseShape{1000, 28, 4, 64, 3, 256},
          CaseShape{2230, 28, 4, 128, 32, 256}}) {
      if (shape.len <= most_tokens) CheckReleased(shape, types, verdicts, rng);
    }
  }
}

}  // namespace videonsa::gpu_check
