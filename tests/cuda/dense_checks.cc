#include <algorithm>
#include <cstring>

#include "tests/cuda/paged_case.h"

namespace videonsa::gpu_check {
namespace {

struct Types {
  DType kv;
  DType rows;
};
constexpr Types kTypes[] = {
    {DType::kBF16, DType::kBF16}, {DType::kBF16, DType::kF32}, {DType::kF32, DType::kF32}};

std::string Label(const char* what, const CaseShape& s, const Types& t) {
  char line[120];
  std::snprintf(line, sizeof(line), "%s len %d heads %d/%d x %d kv %s rows %s", what, s.len,
                s.num_q_heads, s.num_kv_heads, s.head_dim, Name(t.kv), Name(t.rows));
  return line;
}

void CheckAppend(const CaseShape& shape, DType kv_type, Verdicts& verdicts, std::mt19937& rng) {
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase paged(c, kv_type, rng);
  const std::vector<uint8_t> bytes[2] = {paged.KBytes(), paged.VBytes()};
  const std::vector<float> pooled[2] = {paged.KPooled(), paged.VPooled()};
  int wrong = 0;
  double worst = 0;
  for (int side = 0; side < 2; ++side) {
    for (int row = 0; row < c.len; ++row) {
      const int page = paged.page_ids()[static_cast<size_t>(row / kKvPageTokens)];
      for (int h = 0; h < c.num_kv_heads; ++h) {
        const size_t at = ((static_cast<size_t>(page) * c.num_kv_heads + h) * kKvPageTokens +
                           row % kKvPageTokens) *
                          c.head_dim;
        for (int d = 0; d < c.head_dim; ++d) {
          const float want = (side == 0 ? c.K(row, h) : c.V(row, h))[d];
          const float got =
              kv_type == DType::kBF16
                  ? FromBf16(reinterpret_cast<const uint16_t*>(bytes[side].data())[at + d])
                  : reinterpret_cast<const float*>(bytes[side].data())[at + d];
          wrong += got != want;
          if (row % kKvPageTokens != kKvPageTokens - 1) continue;
          double mean = 0;
          for (int i = row - kKvPageTokens + 1; i <= row; ++i) {
            mean += (side == 0 ? c.K(i, h) : c.V(i, h))[d] / kKvPageTokens;
          }
          const size_t tile = static_cast<size_t>(page) * c.num_kv_heads + h;
          worst = std::max(worst, std::abs(pooled[side][tile * c.head_dim + d] - mean));
        }
      }
    }
  }
  verdicts.Add(wrong == 0 && worst < 1e-5, Label("kv_append", shape, {kv_type, DType::kF32}),
               Text("%g numbers wrong, pooled off by %.1e", wrong, worst));
}

std::vector<float> Prefill(const PagedCase& paged, const reference::AttentionCase& c,
                           const Types& types, const uint8_t* skip, int chunk, bool split) {
  DeviceArray<uint8_t> scratch(CudaDenseSplitScratchBytes(c.num_q_heads, c.head_dim, c.len));
  scratch.Fill(0xFF);
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  Matrix q(types.rows, c.len, width, width + 8), out(types.rows, c.len, width, width + 16);
  q.Set(c.q);
  for (int row = 0; row < c.len; row += chunk) {
    CudaDensePrefillParams p;
    p.kv = paged.kv;
    p.q = q.Rows(row);
    p.out = out.Rows(row);
    p.skip_rows = skip == nullptr ? nullptr : skip + row;
    p.num_q_heads = c.num_q_heads;
    p.row_begin = row;
    p.row_end = std::min(c.len, row + chunk);
    p.scale = static_cast<float>(c.Scale());
    p.split_keys = split;
    p.scratch = {scratch.get(), scratch.size()};
    Must(LaunchDensePrefill(p, nullptr), "LaunchDensePrefill");
  }
  return out.Get();
}

void CheckPrefill(const CaseShape& shape, const Types& types, Verdicts& verdicts,
                  std::mt19937& rng) {
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase paged(c, types.kv, rng);
  const DeviceArray<uint8_t> skip(c.is_vision);
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  const bool split = c.len > kDenseRunKeys;
  const std::vector<float> all = Prefill(paged, c, types, nullptr, c.len, split);
  const std::vector<float> chunks = Prefill(paged, c, types, nullptr, split ? 977 : 37, split);
  const std::vector<float> text = Prefill(paged, c, types, skip.get(), c.len, split);
  std::vector<float> got;
  std::vector<double> want;
  for (int row : SampleRows(c.len, 12, rng)) {
    for (int h = 0; h < c.num_q_heads; ++h) {
      const std::vector<double> one = reference::DenseRow(c, row, h);
      want.insert(want.end(), one.begin(), one.end());
    }
    got.insert(got.end(), all.begin() + static_cast<int64_t>(row * width),
               all.begin() + static_cast<int64_t>((row + 1) * width));
  }
  const double error = RelativeError(got, want);
  bool same = std::memcmp(all.data(), chunks.data(), all.size() * sizeof(float)) == 0;
  if (split) {  // rows of one run are as without runs
    const std::vector<float> whole = Prefill(paged, c, types, nullptr, c.len, false);
    same &= std::memcmp(all.data(), whole.data(), kDenseRunKeys * width * sizeof(float)) == 0;
  }
  int wrong = 0;
  for (int row = 0; row < c.len; ++row) {
    const size_t at = static_cast<size_t>(row) * width;
    for (size_t i = 0; i < width; ++i) {
      const bool untouched = std::isnan(text[at + i]);
      wrong += c.is_vision[static_cast<size_t>(row)] ? !untouched : text[at + i] != all[at + i];
    }
  }
  verdicts.Add(error <= Tolerance(types.kv) && same && wrong == 0, Label("dense", shape, types),
               Text("rel %.2e, ", error) + (same ? "chunks equal" : "CHUNKS DIFFER") +
                   Text(", %g wrong with skipped rows", wrong));
}

void CheckDecode(const CaseShape& shape, const Types& types, Verdicts& verdicts,
                 std::mt19937& rng) {
  // Sequences are prefixes of one long one over the same pages.
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase paged(c, types.kv, rng);
  std::vector<int32_t> lens = {c.len, 0, 1, 63, 64, 65, 511, 512, 513, c.len - 1};
  for (int32_t& len : lens) len = std::min(len, c.len);
  const int seqs = static_cast<int>(lens.size());
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  const int64_t table_stride = static_cast<int64_t>(paged.page_ids().size()) + 2;
  std::vector<int32_t> tables(static_cast<size_t>(seqs * table_stride), -1);
  for (int s = 0; s < seqs; ++s) {
    std::copy(paged.page_ids().begin(), paged.page_ids().end(), tables.begin() + s * table_stride);
  }
  const std::vector<float> queries = Normal(rng, static_cast<size_t>(seqs * width), 1.2f);
  const DeviceArray<int32_t> device_tables(tables), device_lens(lens);
  const auto run = [&](int first, int count, int max_len) {
    Matrix q(types.rows, seqs, width), out(types.rows, seqs, width);
    q.Set(queries);
    const size_t bytes = CudaDecodeScratchBytes(count, max_len, c.num_q_heads, c.head_dim);
    DeviceArray<uint8_t> scratch(bytes);
    scratch.Fill(0xFF);
    CudaDecodeParams p;
    p.kv = paged.kv;
    p.q = q.Rows(first);
    p.out = out.Rows(first);
    p.page_tables = device_tables.get() + first * table_stride;
    p.table_stride = table_stride;
    p.kv_lens = device_lens.get() + first;
    p.num_seqs = count;
    p.max_kv_len = max_len;
    p.num_q_heads = c.num_q_heads;
    p.scale = static_cast<float>(c.Scale());
    p.scratch = {scratch.get(), bytes};
    Must(LaunchDecode(p, nullptr), "LaunchDecode");
    return out.Get();
  };
  const std::vector<float> got = run(0, seqs, c.len + 700);
  bool same = true;
  for (int s = 0; s < seqs; ++s) {
    const std::vector<float> alone = run(s, 1, std::max(1, lens[static_cast<size_t>(s)]));
    same &= std::memcmp(&alone[static_cast<size_t>(s * width)],
                        &got[static_cast<size_t>(s * width)], sizeof(float) * width) == 0;
  }
  std::vector<double> want;
  for (int s = 0; s < seqs; ++s) {
    reference::AttentionCase one = c;
    const int row = lens[static_cast<size_t>(s)] - 1;
    for (int h = 0; h < c.num_q_heads; ++h) {
      std::vector<double> result(static_cast<size_t>(c.head_dim), 0.0);
      if (row >= 0) {
        std::copy_n(queries.begin() + s * width, width, one.q.begin() + row * width);
        result = reference::DenseRow(one, row, h);
      }
      want.insert(want.end(), result.begin(), result.end());
    }
  }
  const double error = RelativeError(got, want);
  verdicts.Add(error <= Tolerance(types.kv) && same, Label("decode", shape, types),
               Text("rel %.2e, ", error) + (same ? "alone = in batch" : "ALONE DIFFERS"));
}

void CheckDecodeAppend(Verdicts& verdicts, std::mt19937& rng) {
  const CaseShape shape{200, 4, 2, 16};
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase prefilled(c, DType::kBF16, rng);
  PagedCase decoded(c, DType::kBF16, rng);
  // Written again one row at a time, as decode does.
  const int64_t width = int64_t{c.num_kv_heads} * c.head_dim;
  Matrix k(DType::kF32, c.len, width), v(DType::kF32, c.len, width);
  k.Set(c.k), v.Set(c.v);
  const DeviceArray<int32_t> tables(decoded.page_ids());
  std::vector<int32_t> lens(static_cast<size_t>(c.len));
  for (int i = 0; i < c.len; ++i) lens[static_cast<size_t>(i)] = i + 1;
  const DeviceArray<int32_t> device_lens(lens);
  Must(cudaMemset(decoded.kv.k_pages, 0xFF, decoded.KBytes().size()), "memset");
  Must(cudaMemset(decoded.kv.k_pooled, 0xFF, decoded.KPooled().size() * 4), "memset");
  for (int row = 0; row < c.len; ++row) {
    CudaKvAppendParams p;
    p.kv = decoded.kv;
    p.k = k.Rows(row);
    p.v = v.Rows(row);
    p.num_rows = 1;
    p.page_tables = tables.get();
    p.table_stride = static_cast<int64_t>(decoded.page_ids().size());
    p.kv_lens = device_lens.get() + row;
    Must(LaunchKvAppend(p, nullptr), "LaunchKvAppend");
  }
  const std::vector<float> a = prefilled.KPooled(), b = decoded.KPooled();
  int wrong = 0;
  for (int block = 0; block < c.len / kKvPageTokens; ++block) {
    for (int64_t i = 0; i < width; ++i) {
      const auto at = [&](const PagedCase& p) {
        return static_cast<size_t>(p.page_ids()[static_cast<size_t>(block)] * width + i);
      };
      wrong += a[at(prefilled)] != b[at(decoded)];
    }
  }
  verdicts.Add(wrong == 0, "kv_append row by row", Text("%g pooled numbers differ", wrong));
}

void CheckMass(const CaseShape& shape, DType kv_type, Verdicts& verdicts, std::mt19937& rng) {
  const reference::AttentionCase c = MakeCase(shape, rng);
  const PagedCase paged(c, kv_type, rng);
  const int begin = std::max(0, c.len - 9), rows = c.len - begin, blocks = (c.len + 63) / 64;
  Matrix q(DType::kF32, c.len, int64_t{c.num_q_heads} * c.head_dim);
  q.Set(c.q);
  const DeviceArray<uint8_t> skip(c.is_vision);
  const DeviceArray<double> mass(std::vector<double>(static_cast<size_t>(blocks), 1.0));
  CudaAttentionMassParams p;
  p.kv = paged.kv;
  p.q = q.Rows(begin);
  p.skip_rows = skip.get() + begin;
  p.num_q_heads = c.num_q_heads;
  p.row_begin = begin;
  p.row_end = c.len;
  p.scale = static_cast<float>(c.Scale());
  p.mass = mass.get();
  const size_t bytes = CudaAttentionMassScratchBytes(rows, c.len, c.num_q_heads);
  const DeviceArray<uint8_t> scratch(bytes);
  p.scratch = {scratch.get(), bytes};
  Must(LaunchAttentionMass(p, nullptr), "LaunchAttentionMass");
  std::vector<double> want(static_cast<size_t>(blocks), 1.0);
  for (int row = begin; row < c.len; ++row) {
    if (c.is_vision[static_cast<size_t>(row)]) continue;
    for (int h = 0; h < c.num_q_heads; ++h) {
      std::vector<double> weights;
      double top = -INFINITY, sum = 0;
      for (int key = 0; key <= row; ++key) {
        double dot = 0;
        for (int d = 0; d < c.head_dim; ++d) {
          dot += double{c.Q(row, h)[d]} * c.K(key, h * c.num_kv_heads / c.num_q_heads)[d];
        }
        weights.push_back(dot * c.Scale());
        top = std::max(top, weights.back());
      }
      for (double& w : weights) sum += w = std::exp(w - top);
      for (int key = 0; key <= row; ++key) {
        want[static_cast<size_t>(key / 64)] += weights[static_cast<size_t>(key)] / sum;
      }
    }
  }
  const std::vector<double> got = mass.Get();
  double worst = 0;
  for (size_t b = 0; b < want.size(); ++b) worst = std::max(worst, std::abs(got[b] - want[b]));
  verdicts.Add(worst < 1e-4, Label("attention_mass", shape, {kv_type, DType::kF32}),
               Text("off by %.1e", worst));
}

}  // namespace

void CheckDense(Verdicts& verdicts) {
  std::mt19937 rng(7);
  for (const CaseShape& shape : {CaseShape{1, 28, 4, 128}, CaseShape{64, 6, 2, 64},
                                 CaseShape{200, 4, 2, 16}, CaseShape{330, 16, 4, 80}}) {
    CheckAppend(shape, DType::kBF16, verdicts, rng);
    CheckAppend(shape, DType::kF32, verdicts, rng);
  }
  CheckDecodeAppend(verdicts, rng);
  for (DType kv_type : {DType::kBF16, DType::kF32}) {
    if (most_tokens >= 700) CheckMass({700, 28, 4, 128}, kv_type, verdicts, rng);
    CheckMass({30, 6, 2, 64}, kv_type, verdicts, rng);
  }
  for (const Types& types : kTypes) {
    for (const CaseShape& shape :
         {CaseShape{1, 28, 4, 128}, CaseShape{64, 28, 4, 128}, CaseShape{65, 16, 4, 128},
          CaseShape{1000, 28, 4, 128}, CaseShape{500, 28, 4, 16}, CaseShape{300, 6, 2, 64},
          CaseShape{190, 4, 2, 16}, CaseShape{333, 16, 4, 80}, CaseShape{700, 16, 1, 64},
          CaseShape{129, 5, 5, 64}, CaseShape{210, 6, 6, 32}, CaseShape{8250, 7, 1, 128},
          CaseShape{4100, 4, 2, 80}}) {
      if (shape.len > most_tokens) continue;
      CheckPrefill(shape, types, verdicts, rng);
      if (shape.len <= kDenseRunKeys) CheckDecode(shape, types, verdicts, rng);
    }
  }
}

}  // namespace videonsa::gpu_check
