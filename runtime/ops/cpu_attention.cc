#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "kernels/cpu/attention_mass.h"
#include "kernels/cpu/causal_nsa.h"
#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/kv_append.h"
#include "kernels/cpu/released_nsa.h"
#include "kernels/cpu/sparse_prefill.h"
#include "kernels/cpu/vision_attention.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/cpu_backend.h"

namespace videonsa {
namespace {

float LogitScale(int head_dim) { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

ConstRows RowsOf(const TensorView& x) { return {x.f32(), x.row_stride()}; }

// The training-free pattern of a semantics, if it is one.
std::optional<SparsePattern> PatternOf(AttentionSemantics semantics) {
  switch (semantics) {
    case AttentionSemantics::kTriShape:
      return SparsePattern::kTriShape;
    case AttentionSemantics::kMInference:
      return SparsePattern::kMInference;
    case AttentionSemantics::kFlexPrefill:
      return SparsePattern::kFlexPrefill;
    case AttentionSemantics::kXAttention:
      return SparsePattern::kXAttention;
    default:
      return std::nullopt;
  }
}

// Where a kernel adds its reports.
NsaReports ReportsOf(AttentionTally& tally) {
  NsaReports reports;
  if (!tally.selection_weight.empty()) reports.selection_weight = tally.selection_weight.data();
  reports.gate_sums = tally.gate_sums;
  reports.gate_count = &tally.gate_count;
  return reports;
}

}  // namespace

int ChosenBlocksPerRow(AttentionSemantics semantics, int selected_blocks) {
  if (semantics != AttentionSemantics::kReleasedNsa) return selected_blocks;
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(selected_blocks)));
}

MathType CpuBackend::math_type() const {
  return compute_type_ == DType::kBF16 ? MathType::kBF16 : MathType::kF32;
}

int64_t CpuBackend::AttentionScratchBytes(const AttentionNeeds& needs) const {
  const int threads = pool_.num_threads();
  const AttentionShape& shape = needs.shape;
  PagedKv kv;
  kv.dtype = kv_type();
  kv.num_kv_heads = shape.num_kv_heads;
  kv.head_dim = shape.head_dim;
  size_t bytes = std::max(
      DensePrefillScratchBytes(threads, shape.num_q_heads, shape.num_kv_heads, shape.head_dim),
      DenseDecodeScratchBytes(threads, needs.max_decode_rows, needs.max_tokens, shape.num_q_heads,
                              shape.num_kv_heads, shape.head_dim));
  bytes = std::max(bytes, AttentionMassScratchBytes(threads, shape.num_q_heads, shape.num_kv_heads,
                                                    needs.max_tokens));
  if (needs.semantics == AttentionSemantics::kCausalNsa) {
    bytes = std::max(bytes, CausalNsaScratchBytes(threads, shape.num_q_heads, kv, needs.max_tokens,
                                                  needs.selected_blocks));
  }
  if (const auto pattern = PatternOf(needs.semantics)) {
    SparsePrefillParams params;
    params.kv = kv;
    params.pattern = *pattern;
    params.num_q_heads = shape.num_q_heads;
    bytes = std::max(bytes, SparsePrefillScratchBytes(params, threads, needs.max_tokens));
  }
  if (needs.semantics == AttentionSemantics::kReleasedNsa) {
    bytes = std::max(bytes,
                     ReleasedNsaScratchBytes(threads, kv, needs.max_tokens, needs.selected_blocks));
  }
  return static_cast<int64_t>(bytes);
}

absl::Status CpuBackend::ReserveAttention(const AttentionNeeds& needs) {
  return Grow(static_cast<size_t>(AttentionScratchBytes(needs)), "attention scratch",
              &attention_scratch_);
}

absl::Status CpuBackend::ReserveVision(int max_segment_rows, int head_dim) {
  return Grow(VisionAttentionScratchBytes(pool_.num_threads(), max_segment_rows, head_dim),
              "vision scratch", &vision_scratch_);
}

void CpuBackend::AppendKv(const PagedKv& kv, const TensorView& k, const TensorView& v,
                          int token_begin) {
  VNSA_CHECK_EQ(k.cols(), int64_t{kv.num_kv_heads} * kv.head_dim);
  VNSA_CHECK_EQ(v.cols(), k.cols());
  VNSA_CHECK_EQ(k.rows(), v.rows());
  videonsa::AppendKv({kv, RowsOf(k), RowsOf(v), token_begin, static_cast<int>(k.rows())}, pool_);
}

void CpuBackend::VisionAttention(const VisionAttentionArgs& args) {
  VNSA_CHECK_EQ(args.qkv.cols(), int64_t{3} * args.num_heads * args.head_dim);
  VNSA_CHECK_EQ(args.qkv.rows(), args.segments.back());
  VNSA_CHECK_EQ(args.qkv.rows(), args.out.rows());
  videonsa::VisionAttention(
      {args.qkv.f32(), args.qkv.row_stride(), args.segments.data(),
       static_cast<int>(args.segments.size()) - 1, args.num_heads, args.head_dim,
       LogitScale(args.head_dim), compute_type_ == DType::kBF16, args.out.data, args.out.dtype,
       args.out.row_stride()},
      vision_scratch_.data(), pool_);
}

void CpuBackend::PrefillAttention(const PrefillAttentionArgs& args) {
  VNSA_CHECK_EQ(args.q.rows(), args.row_end - args.row_begin);
  VNSA_CHECK_EQ(args.q.rows(), args.out.rows());
  VNSA_CHECK(args.tally != nullptr);
  if (PatternOf(args.semantics)) {
    Pattern(args);
  } else if (!args.has_vision || args.semantics == AttentionSemantics::kDense) {
    Dense(args);  // without vision rows NSA is dense
  } else if (args.semantics == AttentionSemantics::kCausalNsa) {
    CausalNsa(args);
  } else {
    VNSA_CHECK(args.semantics == AttentionSemantics::kReleasedNsa) << SemanticsName(args.semantics);
    ReleasedNsa(args);
  }
  if (!args.tally->mass.empty() && args.mass_begin < args.row_end) AddMass(args);
}

void CpuBackend::Dense(const PrefillAttentionArgs& args) {
  DensePrefill({args.kv,
                RowsOf(args.q),
                {args.out.f32(), args.out.row_stride()},
                nullptr,
                static_cast<int>(args.q.cols()) / args.kv.head_dim,
                args.row_begin,
                args.row_end,
                LogitScale(args.kv.head_dim),
                math_type()},
               {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
  for (int row = args.row_begin; row < args.row_end; ++row) args.tally->pairs.dense += row + 1;
}

void CpuBackend::Pattern(const PrefillAttentionArgs& args) {
  VNSA_CHECK_EQ(args.row_begin, 0);
  SparsePrefillParams params;
  params.kv = args.kv;
  params.q = RowsOf(args.q);
  params.out = {args.out.f32(), args.out.row_stride()};
  params.pattern = *PatternOf(args.semantics);
  params.num_q_heads = static_cast<int>(args.q.cols()) / args.kv.head_dim;
  params.num_rows = args.row_end;
  params.scale = LogitScale(args.kv.head_dim);
  params.math = math_type();
  params.pairs_all_heads = &args.tally->pattern_pairs_all_heads;
  SparsePrefill(params, {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
}

void CpuBackend::AddMass(const PrefillAttentionArgs& args) {
  const int begin = std::max(args.mass_begin, args.row_begin);
  AttentionMassParams params;
  params.kv = args.kv;
  params.q = RowsOf(args.q.Rows(begin - args.row_begin, args.row_end - begin));
  params.num_q_heads = static_cast<int>(args.q.cols()) / args.kv.head_dim;
  params.row_begin = begin;
  params.row_end = args.row_end;
  params.scale = LogitScale(args.kv.head_dim);
  params.mass = args.tally->mass.data();
  AddAttentionMass(params, {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
}

void CpuBackend::CausalNsa(const PrefillAttentionArgs& args) {
  VNSA_CHECK_EQ(args.gates.cols(), 3 * (args.q.cols() / args.kv.head_dim));
  NsaPairs pairs;
  CausalNsaParams params;
  params.kv = args.kv;
  params.q = RowsOf(args.q);
  params.gates = RowsOf(args.gates);
  params.out = {args.out.f32(), args.out.row_stride()};
  params.is_vision = args.is_vision;
  params.num_q_heads = static_cast<int>(args.q.cols()) / args.kv.head_dim;
  params.row_begin = args.row_begin;
  params.row_end = args.row_end;
  params.selected_blocks = args.selected_blocks;
  params.window = args.window_tokens;
  params.scale = LogitScale(args.kv.head_dim);
  params.math = math_type();
  params.pairs = &pairs;
  params.reports = ReportsOf(*args.tally);
  params.probes.blocks = args.blocks;
  CausalNsaPrefill(params, {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
  args.tally->pairs += {pairs.compressed, pairs.selected, pairs.window, pairs.dense};
}

void CpuBackend::ReleasedNsa(const PrefillAttentionArgs& args) {
  VNSA_CHECK_EQ(args.row_begin, 0);
  VNSA_CHECK_EQ(args.q.cols(), int64_t{kReleasedHeads} * args.kv.head_dim);
  VNSA_CHECK_EQ(args.kv.num_kv_heads, kReleasedKvHeads);
  VNSA_CHECK_EQ(args.gates.cols(), 3 * kReleasedHeads);
  ReleasedPairs pairs;
  ReleasedNsaParams params;
  params.kv = args.kv;
  params.q = RowsOf(args.q);
  params.gates = RowsOf(args.gates);
  params.out = {args.out.f32(), args.out.row_stride()};
  params.is_vision = args.is_vision;
  params.num_rows = args.row_end;
  params.selected_blocks = args.selected_blocks;
  params.window = args.window_tokens;
  params.scale = LogitScale(args.kv.head_dim);
  params.math = math_type();
  params.pairs = &pairs;
  params.reports = ReportsOf(*args.tally);
  params.probes.blocks = args.blocks;
  ReleasedNsaPrefill(params, {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
  // Both copies of a head count; KV head 3 serves eight data slots, the others sixteen.
  args.tally->pairs += {2 * pairs.compressed, 0, 2 * pairs.window, pairs.dense};
  for (int c = 0; c < kReleasedKvHeads; ++c) {
    args.tally->selected_slot_pairs += pairs.selected[c] * (c == kReleasedKvHeads - 1 ? 8 : 16);
  }
}

void CpuBackend::AppendDecodeKv(const PagedKv& kv, const TensorView& k, const TensorView& v) {
  VNSA_CHECK_EQ(k.rows(), decode_rows_.num_seqs);
  for (int row = 0; row < decode_rows_.num_seqs; ++row) {
    PagedKv own = kv;
    own.page_ids = decode_rows_.page_tables[row];
    AppendKv(own, k.Rows(row, 1), v.Rows(row, 1), decode_rows_.kv_lens[row] - 1);
  }
}

void CpuBackend::DecodeAttention(const PagedKv& kv, const TensorView& q, const TensorView& out) {
  VNSA_CHECK_EQ(q.rows(), decode_rows_.num_seqs);
  DenseDecode({kv,
               RowsOf(q),
               {out.f32(), out.row_stride()},
               decode_rows_.page_tables,
               decode_rows_.kv_lens,
               decode_rows_.num_seqs,
               static_cast<int>(q.cols()) / kv.head_dim,
               LogitScale(kv.head_dim),
               math_type()},
              {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
}

}  // namespace videonsa
