// golden_check nsa DIR: attention goldens through the CPU kernels and the oracles.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/golden/checks.h"
#include "tests/golden/nsa_golden.h"

namespace videonsa::golden {

reference::AttentionCase CaseOf(const GoldenCase& golden) {
  const auto floats = [&](const char* name) {
    const GoldenTensor* tensor = golden.Find(name);
    return tensor == nullptr ? std::vector<float>() : tensor->Floats();
  };
  reference::AttentionCase c;
  c.len = golden.json["L"];
  c.num_q_heads = golden.json["H"];
  c.num_kv_heads = golden.json["G"];
  c.head_dim = golden.json["D"];
  c.block_count = golden.json["block_count"];
  if (golden.json["window"].is_number()) c.window = golden.json["window"];
  c.q = floats("q");
  c.k = floats("k");
  c.v = floats("v");
  c.g = floats("g");
  if (const GoldenTensor* vision = golden.Find("vision")) {
    c.is_vision.assign(vision->bytes.begin(), vision->bytes.end());
  }
  return c;
}

void CompareRows(Reporter& reporter, const GoldenCase& golden, const std::string& tensor,
                 const std::string& who, const std::vector<int64_t>& rows,
                 const std::vector<bool>& keep, const std::vector<float>& got) {
  const GoldenTensor* stored = golden.Find(tensor);
  if (stored == nullptr) return;
  const std::vector<float> want = stored->Floats();
  const size_t width = want.size() / rows.size();
  std::vector<float> kept_got, kept_want;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (!keep[r]) continue;
    kept_want.insert(kept_want.end(), want.begin() + r * width, want.begin() + (r + 1) * width);
    kept_got.insert(kept_got.end(), got.begin() + rows[r] * width,
                    got.begin() + (rows[r] + 1) * width);
  }
  reporter.ExpectClose(golden.name, absl::StrCat(tensor, " (", who, ")"), kept_got, kept_want);
}

void CheckNsa(const GoldenOptions& options, Reporter& reporter) {
  for (const std::string& path : FindFiles(options.dir, ".json")) {
    absl::StatusOr<GoldenCase> golden = ReadGoldenCase(path);
    if (!reporter.ExpectOk(path, "read", golden.status())) continue;
    if (!golden->json.is_object() || !golden->json.contains("semantics")) continue;
    const std::string semantics = golden->json["semantics"];
    if (options.cuda) {
      // Cases of the choice alone hold no values to attend to.
      if (golden->Find("k_cmp") == nullptr) CheckNsaOnDevice(*golden, reporter);
    } else if (golden->Find("k_cmp") != nullptr) {
      CheckTopK(*golden, reporter);
    } else if (semantics == "causal_nsa") {
      CheckCausal(*golden, reporter);
    } else if (semantics == "released_nsa") {
      CheckReleased(*golden, reporter);
    } else {
      reporter.Record(false, golden->name, "semantics", semantics);
    }
  }
}

}  // namespace videonsa::golden
