// golden_check nsa DIR --device cuda: attention goldens through the GPU backend.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/status_macros.h"
#include "runtime/executor/kv_storage.h"
#include "runtime/ops/backends.h"
#include "tests/golden/nsa_golden.h"

namespace videonsa::golden {
namespace {

// ||got - want|| / ||want|| of a tensor (attention.md section 7).
constexpr double kBf16Error = 1e-2;
constexpr double kExactError = 1e-4;

struct DeviceOutput {
  std::vector<float> o;
  std::vector<int32_t> blocks;
  AttentionTally tally;
};

absl::StatusOr<DeviceOutput> RunOnDevice(Backend& backend, const GoldenCase& golden,
                                         const reference::AttentionCase& c) {
  const bool released = golden.json["semantics"] == "released_nsa";
  const AttentionShape shape{c.num_q_heads, c.num_kv_heads, c.head_dim};
  const AttentionSemantics semantics =
      released ? AttentionSemantics::kReleasedNsa : AttentionSemantics::kCausalNsa;
  VNSA_RETURN_IF_ERROR(
      backend.ReserveAttention({shape, semantics, c.block_count, c.len, 1, c.len}));
  const int pages = (c.len + kKvPageTokens - 1) / kKvPageTokens;
  VNSA_ASSIGN_OR_RETURN(const KvStorage storage,
                        KvStorage::Create(backend.device(), shape, backend.kv_type(), 1, pages));
  std::vector<DeviceBuffer> buffers;
  absl::Status failed;
  const auto put = [&](const std::vector<float>& values, int64_t columns, DType type) {
    auto buffer = backend.device().Allocate(static_cast<int64_t>(values.size()) * 4, "golden");
    if (!buffer.ok()) failed = buffer.status();
    buffers.push_back(buffer.ok() ? *std::move(buffer) : DeviceBuffer());
    const TensorView view = MatrixView(buffers.back().data(), type, c.len, columns);
    if (failed.ok() && !values.empty()) {
      backend.CopyHostRows(
          MatrixView(const_cast<float*>(values.data()), DType::kF32, c.len, columns), {}, view);
    }
    return view;
  };
  const DType type = backend.attention_type();
  const TensorView q = put(c.q, shape.q_size(), type);
  const TensorView k = put(c.k, shape.kv_size(), type), v = put(c.v, shape.kv_size(), type);
  const TensorView gates = put(c.g, 3 * c.num_q_heads, DType::kF32);
  const TensorView out = put(std::vector<float>(c.q.size(), 0.0f), shape.q_size(), type);
  const int width = ChosenBlocksPerRow(semantics, c.block_count) * c.num_kv_heads;
  const TensorView blocks =
      put(std::vector<float>(static_cast<size_t>(c.len * width), 0.0f), width, DType::kF32);
  VNSA_RETURN_IF_ERROR(failed);
  backend.device().Fill(blocks.data, 0xFF, int64_t{4} * c.len * width);
  std::vector<int32_t> page_ids(static_cast<size_t>(pages));
  std::iota(page_ids.rbegin(), page_ids.rend(), 0);
  std::vector<uint8_t> marks(c.is_vision.begin(), c.is_vision.end());
  DeviceOutput result;
  backend.BeginStep();
  PrefillAttentionArgs args;
  args.semantics = semantics;
  args.selected_blocks = c.block_count;
  args.window_tokens = c.window;
  args.kv = storage.Layer(0, backend.Upload(absl::MakeConstSpan(page_ids)));
  args.q = q, args.gates = gates, args.out = out;
  args.is_vision = marks.data();
  args.is_vision_uploaded = backend.Upload(absl::MakeConstSpan(marks));
  args.has_vision = true;
  args.row_end = c.len;
  args.tally = &result.tally;
  args.blocks = static_cast<int32_t*>(blocks.data);
  backend.AppendKv(args.kv, k, v, 0);
  backend.PrefillAttention(args);
  VNSA_RETURN_IF_ERROR(backend.EndStep());
  result.o = HostFloats(backend, out);
  result.blocks.resize(static_cast<size_t>(c.len * width));
  backend.Download(MatrixView(blocks.data, DType::kI32, c.len, width), result.blocks.data());
  return result;
}

void CompareCase(const GoldenCase& golden, const reference::AttentionCase& c,
                 const DeviceOutput& out, const std::string& who, bool exact, Reporter& reporter) {
  const bool released = golden.json["semantics"] == "released_nsa";
  const std::vector<float> margin = golden.Find("choice_margin")->Floats();
  const std::vector<int64_t> want_blocks =
      golden.Find(released ? "block_indices" : "blocks")->Integers();
  const size_t n = want_blocks.size() / margin.size();
  const size_t heads = static_cast<size_t>(c.num_kv_heads);
  std::vector<bool> keep(static_cast<size_t>(c.len), true);
  int64_t equal = 0, other = 0, wrong = 0;
  for (size_t i = 0; i < margin.size(); ++i) {
    std::vector<int64_t> want(want_blocks.begin() + i * n, want_blocks.begin() + (i + 1) * n);
    std::vector<int64_t> got(out.blocks.begin() + i * n, out.blocks.begin() + (i + 1) * n);
    std::sort(want.begin(), want.end());
    std::sort(got.begin(), got.end());
    if (want == got) {
      ++equal;
      continue;
    }
    ++other;
    keep[i / heads] = false;
    if (exact && Decided(margin[i])) ++wrong;
  }
  reporter.Record(
      wrong == 0, golden.name, absl::StrCat("blocks (", who, ")"),
      absl::StrFormat(
          "%d of %d choices equal (%.2f %%), %d differ against a clear gap", equal, equal + other,
          100.0 * static_cast<double>(equal) / static_cast<double>(equal + other), wrong));
  // Rows that chose otherwise have another result.
  const GoldenTensor* stored = golden.Find("o");
  if (stored == nullptr) return;
  const std::vector<float> o = stored->Floats();
  std::vector<int64_t> rows(static_cast<size_t>(c.len));
  std::iota(rows.begin(), rows.end(), 0);
  const size_t width = out.o.size() / static_cast<size_t>(c.len);
  if (released) rows = golden.Find("rows")->Integers();
  double difference2 = 0, norm2 = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const size_t row = static_cast<size_t>(rows[r]);
    if (!keep[row]) continue;
    for (size_t i = 0; i < width; ++i) {
      const double want = o[r * width + i], got = out.o[row * width + i];
      difference2 += (got - want) * (got - want);
      norm2 += want * want;
    }
  }
  const double error = std::sqrt(difference2 / norm2);
  reporter.Record(error <= (exact ? kExactError : kBf16Error), golden.name,
                  absl::StrCat("o (", who, ")"), absl::StrFormat("relative error %.2e", error));
  const nlohmann::json& account = golden.json["attention_account"];
  if (!released && exact) {
    const BranchPairs& pairs = out.tally.pairs;
    reporter.ExpectEqual(
        golden.name, absl::StrCat("account (", who, ")"),
        std::vector<int64_t>{pairs.compressed, pairs.selected, pairs.window, pairs.dense},
        std::vector<int64_t>{account["compression"], account["selection"], account["window"],
                             account["dense"]});
  }
}

}  // namespace

void CheckNsaOnDevice(const GoldenCase& golden, Reporter& reporter) {
  const reference::AttentionCase c = CaseOf(golden);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const bool exact = type == DType::kF32;
    const std::string who = exact ? "cuda, f32" : "cuda, bf16";
    auto backend = CreateCudaBackend(0, type);
    if (!reporter.ExpectOk(golden.name, who, backend.status())) return;
    const absl::StatusOr<DeviceOutput> out = RunOnDevice(**backend, golden, c);
    if (!reporter.ExpectOk(golden.name, who, out.status())) continue;
    CompareCase(golden, c, *out, who, exact, reporter);
  }
}

}  // namespace videonsa::golden
