#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/released_choice.h"
#include "kernels/reference/released_nsa.h"
#include "tests/golden/nsa_golden.h"
#include "tests/kernels/cpu/released_harness.h"

namespace videonsa::golden {
namespace {

constexpr int kKvHeads = 4;

// Lists of one row may be compared place by place unless two scores are nearly, not exactly, equal.
bool OrderIsDecided(std::vector<float> scores) {
  std::sort(scores.begin(), scores.end());
  for (size_t i = 1; i < scores.size(); ++i) {
    const double gap = scores[i] - scores[i - 1];
    if (gap > 0 && gap <= kChoiceMargin * scores[i]) return false;
  }
  return true;
}

// Compares chosen lists; lists [count, 4, n] for the positions in `rows`.
struct ChoiceCount {
  int equal = 0, equal_sets = 0, wrong = 0, undecided = 0;

  void Add(std::vector<int64_t> want, std::vector<int64_t> got, double margin, bool ordered) {
    if (!Decided(margin)) {
      ++undecided;
    } else if (want == got) {
      ++equal;
    } else {
      std::sort(want.begin(), want.end());
      std::sort(got.begin(), got.end());
      (want == got && !ordered ? equal_sets : wrong) += 1;
    }
  }
  void Report(const GoldenCase& golden, const std::string& who, Reporter& reporter) const {
    reporter.Record(
        wrong == 0 && equal > 0, golden.name, absl::StrCat("block_indices (", who, ")"),
        absl::StrCat(equal, " lists equal, ", equal_sets, " equal as sets (order undecided), ",
                     wrong, " differ, ", undecided, " undecided"));
  }
};

std::vector<int64_t> Slice(const std::vector<int64_t>& from, size_t at, size_t count) {
  return std::vector<int64_t>(from.begin() + at, from.begin() + at + count);
}

// The kernels do not run the zero slots (56 to 63) of the branches: the golden's own values stand
// in for them, everything else is the kernels'.
std::vector<float> DataSlots(const GoldenCase& golden, const std::string& tensor,
                             std::vector<float> got) {
  const GoldenTensor* stored = golden.Find(tensor);
  if (stored == nullptr) return got;
  const std::vector<float> want = stored->Floats();
  const std::vector<int64_t> rows = golden.Find("rows")->Integers();
  const size_t width = want.size() / rows.size(), data = width / 64 * 56;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy(want.begin() + r * width + data, want.begin() + (r + 1) * width,
              got.begin() + rows[r] * width + data);
  }
  return got;
}

// The oracle on the stored rows (it is slow), its choice and log-sum-exps on all.
void CheckOracle(const GoldenCase& golden, const reference::AttentionCase& c, Reporter& reporter) {
  const std::string who = "oracle";
  const std::vector<int64_t> rows = golden.Find("rows")->Integers();
  const std::vector<int64_t> want = golden.Find("block_indices")->Integers();
  const std::vector<float> margin = golden.Find("choice_margin")->Floats();
  const size_t n = want.size() / margin.size();
  reference::ReleasedNsa oracle(c);
  std::vector<float> lse;
  for (int slot = 0; slot < 64; ++slot) {
    for (int row = 0; row < c.len; ++row) lse.push_back(static_cast<float>(oracle.Lse(slot, row)));
  }
  reporter.ExpectClose(golden.name, "lse (oracle)", lse, golden.Find("lse")->Floats());
  ChoiceCount choice;
  for (int i = 0; i < c.len * kKvHeads; ++i) {
    double mine;
    const std::vector<float> scores = oracle.Scores(i / kKvHeads, i % kKvHeads);
    const std::vector<int> chosen = oracle.Choose(scores, mine);
    choice.Add(Slice(want, i * n, n), std::vector<int64_t>(chosen.begin(), chosen.end()), margin[i],
               OrderIsDecided(scores));
  }
  choice.Report(golden, who, reporter);
  std::vector<float> o, sparse, dense, cmp, slc, win;
  std::vector<bool> keep;
  std::vector<int64_t> index;
  for (size_t i = 0; i < rows.size(); ++i) {
    const reference::ReleasedRow r = oracle.Row(static_cast<int>(rows[i]));
    bool decided = true;
    for (int g = 0; g < kKvHeads; ++g) decided &= Decided(margin[rows[i] * kKvHeads + g]);
    keep.push_back(decided);
    index.push_back(static_cast<int64_t>(i));
    o.insert(o.end(), r.out.begin(), r.out.end());
    sparse.insert(sparse.end(), r.sparse_h.begin(), r.sparse_h.end());
    dense.insert(dense.end(), r.dense_h.begin(), r.dense_h.end());
    cmp.insert(cmp.end(), r.o_cmp.begin(), r.o_cmp.end());
    slc.insert(slc.end(), r.o_slc.begin(), r.o_slc.end());
    win.insert(win.end(), r.o_win.begin(), r.o_win.end());
  }
  CompareRows(reporter, golden, "o_cmp", who, index, keep, cmp);
  CompareRows(reporter, golden, "o_slc", who, index, keep, slc);
  CompareRows(reporter, golden, "o_win", who, index, keep, win);
  CompareRows(reporter, golden, "sparse_h", who, index, keep, sparse);
  CompareRows(reporter, golden, "dense_h", who, index, keep, dense);
  CompareRows(reporter, golden, "o", who, index, keep, o);
}

// The kernels on every row. Rows whose choice rounding decides are left out of what depends on it.
void CheckKernels(const GoldenCase& golden, const reference::AttentionCase& c, DType dtype,
                  Reporter& reporter) {
  const std::string who = dtype == DType::kF32 ? "cpu, f32 pages" : "cpu, bf16 pages";
  std::mt19937 rng(1);
  const ReleasedOutput out = RunReleased(c, dtype, MathType::kF32, 2, rng);
  const std::vector<int64_t> rows = golden.Find("rows")->Integers();
  const std::vector<int64_t> want = golden.Find("block_indices")->Integers();
  const std::vector<float> margin = golden.Find("choice_margin")->Floats();
  const size_t n = want.size() / margin.size();
  reporter.ExpectClose(golden.name, absl::StrCat("lse (", who, ")"), out.lse,
                       golden.Find("lse")->Floats());
  reference::ReleasedNsa oracle(c);
  ChoiceCount choice;
  for (int i = 0; i < c.len * kKvHeads; ++i) {
    const std::vector<int64_t> got(out.blocks.begin() + i * n, out.blocks.begin() + (i + 1) * n);
    choice.Add(Slice(want, i * n, n), got, margin[i],
               OrderIsDecided(oracle.Scores(i / kKvHeads, i % kKvHeads)));
  }
  choice.Report(golden, who, reporter);
  std::vector<bool> keep;
  for (int64_t row : rows) {
    bool decided = true;
    for (int g = 0; g < kKvHeads; ++g) decided &= Decided(margin[row * kKvHeads + g]);
    keep.push_back(decided);
  }
  CompareRows(reporter, golden, "o_cmp", who, rows, keep, DataSlots(golden, "o_cmp", out.o_cmp));
  CompareRows(reporter, golden, "o_slc", who, rows, keep, DataSlots(golden, "o_slc", out.o_slc));
  CompareRows(reporter, golden, "o_win", who, rows, keep, DataSlots(golden, "o_win", out.o_win));
  CompareRows(reporter, golden, "o", who, rows, keep, out.o);
  const nlohmann::json& account = golden.json["attention_account"];
  std::vector<int64_t> mine{out.pairs.compressed, out.pairs.window, out.pairs.dense};
  std::vector<int64_t> stored{account["compression"], account["window"], account["dense"]};
  for (int g = 0; g < kKvHeads; ++g) {
    mine.push_back(out.pairs.selected[g]);
    stored.push_back(account["selection_per_kv_head"][g]);
  }
  reporter.ExpectEqual(golden.name, absl::StrCat("account (", who, ")"), mine, stored);
}

// The kernels' scores and network on given block means and log-sum-exps.
void CheckTopKKernels(const GoldenCase& golden, const reference::AttentionCase& c,
                      reference::ReleasedNsa& oracle, Reporter& reporter) {
  const std::vector<int64_t> rows = golden.Find("rows")->Integers();
  const std::vector<int64_t> want = golden.Find("block_indices")->Integers();
  const std::vector<float> margin = golden.Find("choice_margin")->Floats();
  const std::vector<float> k_cmp = golden.Find("k_cmp")->Floats();
  const std::vector<float> lse = golden.Find("lse")->Floats();
  const int n = static_cast<int>(want.size() / margin.size());
  PooledTiles pooled;
  pooled.num_blocks = (c.len + kKvPageTokens - 1) / kKvPageTokens;
  pooled.num_tiles = PooledTiles::TilesOf(pooled.num_blocks);
  pooled.head_dim = c.head_dim;
  std::vector<float> k(kKvHeads * pooled.num_tiles * pooled.tile_floats(), 0.0f);
  pooled.k = k.data();
  for (int b = 0; b < pooled.num_blocks; ++b) {
    for (int i = 0; i < kKvHeads * c.head_dim; ++i) {
      pooled.K(i / c.head_dim,
               b / kKvPageTokens)[i % c.head_dim * kKvPageTokens + b % kKvPageTokens] =
          k_cmp[b * kKvHeads * c.head_dim + i];
    }
  }
  const size_t stride = static_cast<size_t>(pooled.num_tiles) * kKvPageTokens;
  std::vector<float> weights(16 * stride), scores(stride);
  ChoiceCount choice;
  for (size_t i = 0; i < margin.size(); ++i) {
    int32_t position = static_cast<int32_t>(rows[i / kKvHeads]);
    TileRow slots[16];
    NsaSpan span;
    span.num_tokens = 1;
    span.kv_head = static_cast<int>(i % kKvHeads);
    span.group = span.kv_head < 3 ? 16 : 8;
    span.head_dim = c.head_dim;
    span.rows = slots;
    span.positions = &position;
    for (int s = 0; s < span.group; ++s) {
      slots[s].q = c.Q(position, (span.kv_head * 16 + s) % kReleasedHeads);
    }
    ReleasedScores(span, pooled, lse.data(), static_cast<float>(c.Scale()), weights.data(),
                   scores.data());
    std::vector<int32_t> got(n);
    NetworkChoice(&position, 1, scores.data(), stride, n, got.data());
    choice.Add(Slice(want, i * n, n), std::vector<int64_t>(got.begin(), got.end()), margin[i],
               OrderIsDecided(oracle.Scores(position, span.kv_head)));
  }
  choice.Report(golden, "cpu", reporter);
}

}  // namespace

void CheckReleased(const GoldenCase& golden, Reporter& reporter) {
  const reference::AttentionCase c = CaseOf(golden);
  CheckOracle(golden, c, reporter);
  CheckKernels(golden, c, DType::kF32, reporter);
  CheckKernels(golden, c, DType::kBF16, reporter);
}

void CheckTopK(const GoldenCase& golden, Reporter& reporter) {
  const std::vector<int64_t> rows = golden.Find("rows")->Integers();
  const std::vector<float> q = golden.Find("q")->Floats();
  const std::vector<int64_t> want = golden.Find("block_indices")->Integers();
  const std::vector<float> margin = golden.Find("choice_margin")->Floats();
  const size_t n = want.size() / margin.size();
  reference::AttentionCase c = CaseOf(golden);
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  c.q.assign(c.len * width, 0.0f);  // queries of text rows are zeroed already
  c.is_vision.assign(c.len, 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(q.begin() + i * width, width, c.q.begin() + rows[i] * width);
  }
  reference::ReleasedNsa oracle(c);
  oracle.OverridePooledKeys(golden.Find("k_cmp")->Floats());
  oracle.OverrideLse(golden.Find("lse")->Floats());
  ChoiceCount choice;
  for (size_t i = 0; i < margin.size(); ++i) {
    double mine;
    const std::vector<float> scores =
        oracle.Scores(static_cast<int>(rows[i / kKvHeads]), static_cast<int>(i % kKvHeads));
    const std::vector<int> chosen = oracle.Choose(scores, mine);
    choice.Add(Slice(want, i * n, n), std::vector<int64_t>(chosen.begin(), chosen.end()), margin[i],
               OrderIsDecided(scores));
  }
  choice.Report(golden, "oracle", reporter);
  CheckTopKKernels(golden, c, oracle, reporter);
}

}  // namespace videonsa::golden
