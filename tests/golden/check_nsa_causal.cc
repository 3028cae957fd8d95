#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/reference/causal_nsa.h"
#include "tests/golden/nsa_golden.h"
#include "tests/kernels/cpu/causal_harness.h"

namespace videonsa::golden {
namespace {

CausalOutput RunOracle(const reference::AttentionCase& c) {
  CausalOutput out;
  for (int row = 0; row < c.len; ++row) {
    const reference::CausalRow r = reference::CausalNsaRow(c, row);
    out.o.insert(out.o.end(), r.out.begin(), r.out.end());
    out.o_cmp.insert(out.o_cmp.end(), r.o_cmp.begin(), r.o_cmp.end());
    out.o_slc.insert(out.o_slc.end(), r.o_slc.begin(), r.o_slc.end());
    out.o_win.insert(out.o_win.end(), r.o_win.begin(), r.o_win.end());
    for (const std::vector<int>& blocks : r.blocks) {
      for (int i = 0; i < c.block_count; ++i) {
        out.blocks.push_back(i < static_cast<int>(blocks.size()) ? blocks[i] : -1);
      }
    }
    out.pairs.compressed += r.pairs.compressed;
    out.pairs.selected += r.pairs.selected;
    out.pairs.window += r.pairs.window;
    out.pairs.dense += r.pairs.dense;
  }
  return out;
}

void Compare(const GoldenCase& golden, const reference::AttentionCase& c, const CausalOutput& out,
             const std::string& who, Reporter& reporter) {
  const std::vector<float> margin = golden.Find("choice_margin")->Floats();
  const std::vector<int64_t> want = golden.Find("blocks")->Integers();
  int wrong = 0, undecided = 0;
  std::vector<bool> decided(c.len, true);
  for (size_t i = 0; i < margin.size(); ++i) {
    const size_t at = i * c.block_count;
    if (!Decided(margin[i])) {
      ++undecided;
      decided[i / c.num_kv_heads] = false;
    } else if (!std::equal(want.begin() + at, want.begin() + at + c.block_count,
                           out.blocks.begin() + at)) {
      ++wrong;
    }
  }
  reporter.Record(wrong == 0, golden.name, absl::StrCat("blocks (", who, ")"),
                  absl::StrCat(margin.size() - undecided - wrong, " lists equal, ", wrong,
                               " differ, ", undecided, " undecided"));
  const std::vector<int64_t> rows = golden.Find("rows")->Integers();
  std::vector<int64_t> all(c.len);
  std::iota(all.begin(), all.end(), 0);
  std::vector<bool> keep;
  for (int64_t row : rows) keep.push_back(decided[row]);
  CompareRows(reporter, golden, "o_cmp", who, rows, keep, out.o_cmp);
  CompareRows(reporter, golden, "o_slc", who, rows, keep, out.o_slc);
  CompareRows(reporter, golden, "o_win", who, rows, keep, out.o_win);
  CompareRows(reporter, golden, "o", who, all, decided, out.o);
  const nlohmann::json& account = golden.json["attention_account"];
  reporter.ExpectEqual(golden.name, absl::StrCat("account (", who, ")"),
                       std::vector<int64_t>{out.pairs.compressed, out.pairs.selected,
                                            out.pairs.window, out.pairs.dense},
                       std::vector<int64_t>{account["compression"], account["selection"],
                                            account["window"], account["dense"]});
}

}  // namespace

void CheckCausal(const GoldenCase& golden, Reporter& reporter) {
  const reference::AttentionCase c = CaseOf(golden);
  std::mt19937 rng(1);
  CausalRun run{.borders = {c.len}};
  Compare(golden, c, RunOracle(c), "oracle", reporter);
  Compare(golden, c, RunCausal(c, run, rng), "cpu, f32 pages", reporter);
  run.dtype = DType::kBF16;
  Compare(golden, c, RunCausal(c, run, rng), "cpu, bf16 pages", reporter);
}

}  // namespace videonsa::golden
