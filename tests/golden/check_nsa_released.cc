#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/reference/released_nsa.h"
#include "tests/golden/nsa_golden.h"

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

}  // namespace

void CheckReleased(const GoldenCase& golden, Reporter& reporter) {
  const reference::AttentionCase c = CaseOf(golden);
  CheckOracle(golden, c, reporter);
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
}

}  // namespace videonsa::golden
