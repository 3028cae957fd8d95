#include <algorithm>
#include <cmath>

#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/kv_append.h"
#include "kernels/cpu/vision_attention.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/cpu_backend.h"

namespace videonsa {
namespace {

float LogitScale(int head_dim) { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

ConstRows RowsOf(const TensorView& x) { return {x.f32(), x.row_stride()}; }

}  // namespace

absl::Status CpuBackend::ReserveAttention(const AttentionShape& shape, int max_tokens,
                                          int max_decode_rows) {
  const int threads = pool_.num_threads();
  const size_t bytes = std::max(
      {DensePrefillScratchBytes(threads, shape.num_q_heads, shape.num_kv_heads, shape.head_dim),
       DenseDecodeScratchBytes(threads, max_decode_rows, max_tokens, shape.num_q_heads,
                               shape.num_kv_heads, shape.head_dim)});
  return Grow(bytes, "attention scratch", &attention_scratch_);
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
  const int num_q_heads = static_cast<int>(args.q.cols()) / args.kv.head_dim;
  const float scale = LogitScale(args.kv.head_dim);
  const MathType math = compute_type_ == DType::kBF16 ? MathType::kBF16 : MathType::kF32;
  const Scratch scratch{attention_scratch_.data(), attention_scratch_.bytes()};
  VNSA_CHECK_EQ(args.q.rows(), args.row_end - args.row_begin);
  VNSA_CHECK(args.semantics == AttentionSemantics::kDense);
  DensePrefill({args.kv,
                RowsOf(args.q),
                {args.out.f32(), args.out.row_stride()},
                nullptr,
                num_q_heads,
                args.row_begin,
                args.row_end,
                scale,
                math},
               scratch, pool_);
  for (int row = args.row_begin; row < args.row_end; ++row) args.tally->pairs.dense += row + 1;
}

void CpuBackend::DecodeAttention(const DecodeAttentionArgs& args) {
  const MathType math = compute_type_ == DType::kBF16 ? MathType::kBF16 : MathType::kF32;
  DenseDecode({args.kv,
               RowsOf(args.q),
               {args.out.f32(), args.out.row_stride()},
               args.page_tables,
               args.kv_lens,
               args.num_seqs,
               static_cast<int>(args.q.cols()) / args.kv.head_dim,
               LogitScale(args.kv.head_dim),
               math},
              {attention_scratch_.data(), attention_scratch_.bytes()}, pool_);
}

}  // namespace videonsa
