#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/attention/cuda_attention.h"
#include "kernels/nsa/nsa_params.h"
#include "kernels/vision/cuda_vision.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/cuda_backend.h"

namespace videonsa {
namespace {

// Of causal_nsa (kernels/nsa/cuda_nsa.h).
constexpr int kMaxSelectedBlocks = 64;
// Kernels hold scores of a round number of rows: a shorter call may take somewhat more than the
// longest one.
constexpr size_t kScratchMargin = size_t{16} << 20;

// Decode launches are sized for caches of a multiple of this many tokens, so that one record serves
// many steps.
constexpr int kDecodeLengthStep = 2048;

int RoundedLength(int tokens) {
  return (tokens + kDecodeLengthStep - 1) / kDecodeLengthStep * kDecodeLengthStep;
}

constexpr double kTallyUnit = 1.0 / static_cast<double>(uint64_t{1} << kCudaTallyShift);

CudaConstRows ConstRowsOf(const TensorView& x) { return {x.data, x.dtype, x.row_stride()}; }
CudaRows RowsOf(const TensorView& x) { return {x.data, x.dtype, x.row_stride()}; }
float LogitScale(int head_dim) { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
int QueryHeads(const TensorView& q, const PagedKv& kv) {
  return static_cast<int>(q.cols()) / kv.head_dim;
}

absl::Status CheckHeads(int num_q_heads, int num_kv_heads, int head_dim) {
  const bool known =
      head_dim == 16 || head_dim == 32 || head_dim == 64 || head_dim == 80 || head_dim == 128;
  if (known && num_q_heads <= 16 * num_kv_heads) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_INVALID",
                   absl::StrCat("the GPU worker has no attention for ", num_q_heads, " query and ",
                                num_kv_heads, " KV heads of ", head_dim,
                                " (16, 32, 64, 80 or 128; at most 16 query heads a KV head)"));
}

// Pairs that depend on positions alone (CudaNsaTally).
void CountPairs(const PrefillAttentionArgs& args, int num_q_heads, AttentionTally& tally) {
  const bool released = args.semantics == AttentionSemantics::kReleasedNsa;
  const int num_blocks = (args.row_end + kKvPageTokens - 1) / kKvPageTokens;
  BranchPairs pairs;
  int64_t vision = 0;
  for (int row = args.row_begin; row < args.row_end; ++row) {
    if (args.is_vision[row - args.row_begin] == 0) {
      pairs.dense += row + 1;
      continue;
    }
    ++vision;
    const int own = row / kKvPageTokens;
    pairs.window += std::min(args.window_tokens, row + 1);
    if (released) {
      pairs.compressed += num_blocks - own;
    } else {
      pairs.compressed += (row + 1) / kKvPageTokens;
      pairs.selected += int64_t{std::min(args.selected_blocks, own + 1) - 1} * kKvPageTokens +
                        row % kKvPageTokens + 1;
    }
  }
  if (released) pairs.compressed *= 2, pairs.window *= 2;  // both copies of a head
  tally.pairs += pairs;
  tally.gate_count += vision * num_q_heads;
}

// The runs of text rows of a call; those that lie close together become one, and so do those beyond
// a few. Not null if there are none.
std::vector<CudaRowRange> TextRanges(const PrefillAttentionArgs& args) {
  constexpr int kClose = 256;
  constexpr size_t kMost = 16;
  std::vector<CudaRowRange> ranges;
  ranges.reserve(kMost);
  const int rows = args.row_end - args.row_begin;
  for (int row = 0; row < rows; ++row) {
    if (args.is_vision[row] != 0) continue;
    if (!ranges.empty() && (row - ranges.back().end < kClose || ranges.size() == kMost)) {
      ranges.back().end = row + 1;
    } else {
      ranges.push_back({row, row + 1});
    }
  }
  return ranges;
}

}  // namespace

bool CudaBackend::Supports(AttentionSemantics semantics) const {
  return semantics == AttentionSemantics::kDense || semantics == AttentionSemantics::kCausalNsa ||
         semantics == AttentionSemantics::kReleasedNsa;
}

absl::Status CudaBackend::ReserveAttention(const AttentionNeeds& needs) {
  const AttentionShape& shape = needs.shape;
  if (needs.semantics == AttentionSemantics::kCausalNsa &&
      needs.selected_blocks > kMaxSelectedBlocks) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "ATTENTION_UNSUPPORTED",
        absl::StrCat("attention causal_nsa: ", needs.selected_blocks,
                     " selected blocks, the GPU worker has at most ", kMaxSelectedBlocks));
  }
  VNSA_RETURN_IF_ERROR(CheckHeads(shape.num_q_heads, shape.num_kv_heads, shape.head_dim));
  PagedKv kv;
  kv.dtype = kv_type();
  kv.num_kv_heads = shape.num_kv_heads;
  kv.head_dim = shape.head_dim;
  size_t bytes = CudaDecodeScratchBytes(needs.max_decode_rows, RoundedLength(needs.max_tokens),
                                        shape.num_q_heads, shape.head_dim);
  constexpr int kEvidenceRows = 64;
  bytes = std::max(
      bytes, CudaAttentionMassScratchBytes(kEvidenceRows, needs.max_tokens, shape.num_q_heads));
  if (needs.semantics == AttentionSemantics::kCausalNsa) {
    bytes = std::max(bytes, CudaCausalNsaScratchBytes(kv, shape.num_q_heads, needs.max_prefill_rows,
                                                      needs.max_tokens, needs.selected_blocks));
  }
  if (needs.semantics == AttentionSemantics::kReleasedNsa) {
    bytes =
        std::max(bytes, CudaReleasedNsaScratchBytes(kv, needs.max_tokens, needs.selected_blocks));
  }
  if (decode_capacity_ < needs.max_decode_rows) {
    decode_capacity_ = needs.max_decode_rows;
    decode_records_.clear();  // tables move
  }
  const int64_t table_words =
      int64_t{decode_capacity_} * RoundedLength(needs.max_tokens) / kKvPageTokens;
  VNSA_RETURN_IF_ERROR(
      Grow(4 * (decode_capacity_ + table_words), "page tables of a decode step", &decode_tables_));
  return Grow(static_cast<int64_t>(bytes + kScratchMargin), "attention scratch",
              &attention_scratch_);
}

absl::Status CudaBackend::ReserveVision(int, int head_dim) { return CheckHeads(1, 1, head_dim); }

void CudaBackend::AppendKv(const PagedKv& kv, const TensorView& k, const TensorView& v,
                           int token_begin) {
  VNSA_CHECK_EQ(k.cols(), int64_t{kv.num_kv_heads} * kv.head_dim);
  VNSA_CHECK_EQ(k.rows(), v.rows());
  CudaKvAppendParams params;
  params.kv = kv;
  params.k = ConstRowsOf(k);
  params.v = ConstRowsOf(v);
  params.num_rows = static_cast<int>(k.rows());
  params.token_begin = token_begin;
  Launched(LaunchKvAppend(params, device_->stream()), "writing keys and values");
}

void CudaBackend::VisionAttention(const VisionAttentionArgs& args) {
  VNSA_CHECK_EQ(args.qkv.cols(), int64_t{3} * args.num_heads * args.head_dim);
  VNSA_CHECK_EQ(args.qkv.rows(), args.segments.back());
  CudaVisionAttentionParams params;
  params.qkv = ConstRowsOf(args.qkv);
  params.out = RowsOf(args.out);
  params.segments = Pass(args.segments);
  params.num_segments = static_cast<int>(args.segments.size()) - 1;
  for (size_t i = 1; i < args.segments.size(); ++i) {
    params.max_segment_rows =
        std::max(params.max_segment_rows, args.segments[i] - args.segments[i - 1]);
  }
  params.num_heads = args.num_heads;
  params.head_dim = args.head_dim;
  params.scale = LogitScale(args.head_dim);
  Launched(LaunchVisionAttention(params, device_->stream()), "vision attention");
}

// Room for what a call's kernels report, zeroed since the step began.
CudaNsaTally CudaBackend::AddReport(const PrefillAttentionArgs& args, double** mass) {
  const bool weight = !args.tally->selection_weight.empty();
  Report report;
  report.tally = args.tally;
  report.begin = report_words_;
  report.num_kv_heads = args.kv.num_kv_heads;
  report.num_blocks = weight ? static_cast<int>(args.tally->selection_weight.size()) : 0;
  report.released = args.semantics == AttentionSemantics::kReleasedNsa;
  const int64_t words = args.kv.num_kv_heads + 4 + 2 * report.num_blocks;
  *mass = nullptr;
  if (report_words_ + words > kMaxReportWords) return {};  // reports of a step beyond the room
  report_words_ += words;
  open_reports_.push_back(report);
  unsigned long long* base = static_cast<unsigned long long*>(reports_.data()) + report.begin;
  CudaNsaTally tally;
  tally.selected_pairs = base;
  tally.saturated_rows = base + report.num_kv_heads;
  tally.gate_sums = base + report.num_kv_heads + 1;
  if (weight) {
    tally.selection_weight = base + report.num_kv_heads + 4;
    *mass = reinterpret_cast<double*>(tally.selection_weight + report.num_blocks);
  }
  return tally;
}

void CudaBackend::TakeReports() {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(host_reports_.data());
  for (const Report& report : open_reports_) {
    const uint64_t* own = words + report.begin;
    AttentionTally& tally = *report.tally;
    if (report.released) {
      // KV head 3 serves eight data slots, the others sixteen.
      for (int c = 0; c < kReleasedKvHeads; ++c) {
        tally.selected_slot_pairs +=
            static_cast<int64_t>(own[c]) * (c == kReleasedKvHeads - 1 ? 8 : 16);
      }
    }
    own += report.num_kv_heads + 1;
    for (int branch = 0; branch < 3; ++branch) {
      tally.gate_sums[branch] += static_cast<double>(own[branch]) * kTallyUnit;
    }
    own += 3;
    for (int block = 0; block < report.num_blocks; ++block) {
      const size_t at = static_cast<size_t>(block);
      tally.selection_weight[at] += static_cast<double>(own[block]) * kTallyUnit;
      double mass;
      std::memcpy(&mass, own + report.num_blocks + block, sizeof(mass));
      tally.mass[at] += mass;
    }
  }
  open_reports_.clear();
}

void CudaBackend::PrefillAttention(const PrefillAttentionArgs& args) {
  VNSA_CHECK_EQ(args.q.rows(), args.row_end - args.row_begin);
  VNSA_CHECK_EQ(args.q.rows(), args.out.rows());
  VNSA_CHECK(args.tally != nullptr);
  double* mass = nullptr;
  const CudaNsaTally tally = AddReport(args, &mass);
  if (!args.has_vision || args.semantics == AttentionSemantics::kDense) {
    Dense(args);  // without vision rows NSA is dense
  } else if (args.semantics == AttentionSemantics::kCausalNsa) {
    CausalNsa(args, tally);
  } else {
    VNSA_CHECK(args.semantics == AttentionSemantics::kReleasedNsa) << SemanticsName(args.semantics);
    ReleasedNsa(args, tally);
  }
  if (mass != nullptr && args.mass_begin < args.row_end) Mass(args, mass);
}

void CudaBackend::Dense(const PrefillAttentionArgs& args) {
  CudaDensePrefillParams params;
  params.kv = args.kv;
  params.q = ConstRowsOf(args.q);
  params.out = RowsOf(args.out);
  params.num_q_heads = QueryHeads(args.q, args.kv);
  params.row_begin = args.row_begin;
  params.row_end = args.row_end;
  params.scale = LogitScale(args.kv.head_dim);
  // As in a chunk that has vision rows too.
  params.split_keys = args.semantics == AttentionSemantics::kCausalNsa;
  params.scratch = {attention_scratch_.data(), attention_scratch_.bytes()};
  Launched(LaunchDensePrefill(params, device_->stream()), "dense attention");
  const int64_t begin = args.row_begin, end = args.row_end;
  args.tally->pairs.dense += end * (end + 1) / 2 - begin * (begin + 1) / 2;
}

void CudaBackend::CausalNsa(const PrefillAttentionArgs& args, const CudaNsaTally& tally) {
  const int num_q_heads = QueryHeads(args.q, args.kv);
  VNSA_CHECK_EQ(args.gates.cols(), 3 * num_q_heads);
  CudaCausalNsaParams params;
  params.kv = args.kv;
  params.q = ConstRowsOf(args.q);
  params.out = RowsOf(args.out);
  params.gates = args.gates.f32();
  params.gates_stride = args.gates.row_stride();
  params.is_vision = args.is_vision_uploaded;
  params.num_q_heads = num_q_heads;
  params.row_begin = args.row_begin;
  params.row_end = args.row_end;
  params.selected_blocks = args.selected_blocks;
  params.window = args.window_tokens;
  params.scale = LogitScale(args.kv.head_dim);
  const std::vector<CudaRowRange> text = TextRanges(args);
  params.text = text.data();
  params.num_text = static_cast<int>(text.size());
  params.blocks = args.blocks;
  params.tally = tally;
  params.scratch = {attention_scratch_.data(), attention_scratch_.bytes()};
  Launched(LaunchCausalNsa(params, device_->stream()), "causal_nsa attention");
  CountPairs(args, num_q_heads, *args.tally);
}

void CudaBackend::ReleasedNsa(const PrefillAttentionArgs& args, const CudaNsaTally& tally) {
  VNSA_CHECK(args.row_begin == 0 || args.row_begin >= FirstFreeReleasedRow(args.row_end));
  VNSA_CHECK_EQ(args.q.cols(), int64_t{kReleasedHeads} * args.kv.head_dim);
  VNSA_CHECK_EQ(args.kv.num_kv_heads, kReleasedKvHeads);
  VNSA_CHECK_EQ(args.gates.cols(), 3 * kReleasedHeads);
  CudaReleasedNsaParams params;
  params.kv = args.kv;
  params.q = ConstRowsOf(args.q);
  params.out = RowsOf(args.out);
  params.gates = args.gates.f32();
  params.gates_stride = args.gates.row_stride();
  params.is_vision = args.is_vision_uploaded - args.row_begin;
  const std::vector<CudaRowRange> text = TextRanges(args);
  params.text = text.data();
  params.num_text = static_cast<int>(text.size());
  params.row_begin = args.row_begin;
  params.num_rows = args.row_end;
  params.selected_blocks = args.selected_blocks;
  params.window = args.window_tokens;
  params.scale = LogitScale(args.kv.head_dim);
  params.blocks = args.blocks;
  params.tally = tally;
  params.scratch = {attention_scratch_.data(), attention_scratch_.bytes()};
  Launched(LaunchReleasedNsa(params, device_->stream()), "released_nsa attention");
  CountPairs(args, kReleasedHeads, *args.tally);
}

void CudaBackend::Mass(const PrefillAttentionArgs& args, double* mass) {
  const int begin = std::max(args.mass_begin, args.row_begin);
  CudaAttentionMassParams params;
  params.kv = args.kv;
  params.q = ConstRowsOf(args.q.Rows(begin - args.row_begin, args.row_end - begin));
  params.num_q_heads = QueryHeads(args.q, args.kv);
  params.row_begin = begin;
  params.row_end = args.row_end;
  params.scale = LogitScale(args.kv.head_dim);
  params.mass = mass;
  params.scratch = {attention_scratch_.data(), attention_scratch_.bytes()};
  Launched(LaunchAttentionMass(params, device_->stream()), "attention mass");
}

// Lengths, then page tables, always at the same addresses: records of earlier steps read them.
void CudaBackend::BeginDecode(const DecodeRows& rows) {
  decode_seqs_ = rows.num_seqs;
  decode_max_len_ = 0;
  for (int i = 0; i < rows.num_seqs; ++i) {
    decode_max_len_ = std::max(decode_max_len_, rows.kv_lens[i]);
  }
  decode_max_len_ = RoundedLength(decode_max_len_);
  decode_stride_ = decode_max_len_ / kKvPageTokens;
  VNSA_CHECK_LE(decode_seqs_, decode_capacity_);
  VNSA_CHECK_LE(4 * (decode_capacity_ + decode_seqs_ * decode_stride_),
                static_cast<int64_t>(decode_tables_.bytes()))
      << "ReserveAttention";
  const int64_t length_bytes = int64_t{4} * decode_seqs_, table_bytes = 4 * decode_stride_;
  std::memcpy(uploads_.Stage(length_bytes), rows.kv_lens, static_cast<size_t>(length_bytes));
  uploads_.Send(decode_tables_.data(), length_bytes);
  const int piece = static_cast<int>(CudaUploads::kSegmentBytes / table_bytes);
  for (int begin = 0; begin < decode_seqs_; begin += piece) {
    const int count = std::min(piece, decode_seqs_ - begin);
    char* staged = uploads_.Stage(count * table_bytes);
    std::memset(staged, 0, static_cast<size_t>(count * table_bytes));
    for (int i = 0; i < count; ++i) {
      const int pages = (rows.kv_lens[begin + i] + kKvPageTokens - 1) / kKvPageTokens;
      std::memcpy(staged + i * table_bytes, rows.page_tables[begin + i], size_t{4} * pages);
    }
    uploads_.Send(DecodeTables() + begin * decode_stride_, count * table_bytes);
  }
}

void CudaBackend::RunDecode(const DecodePlaces& places, absl::FunctionRef<void()> enqueue) {
  const DecodeKey key{decode_seqs_,          decode_max_len_,           places.hidden,
                      places.angles,         places.workspace,          places.pages,
                      decode_tables_.data(), attention_scratch_.data(), swiglu_.data()};
  const auto found = decode_records_.find(key);
  if (found == decode_records_.end()) {
    // The first time runs as it is: products are planned and kernels loaded.
    enqueue();
    ++decode_starts_.eager;
    if (decode_records_.size() < kMaxDecodeRecords) decode_records_[key] = nullptr;
    return;
  }
  std::unique_ptr<CudaGraph>& graph = found->second;
  if (graph == nullptr) graph = CudaGraph::Record(*device_, enqueue);
  if (graph == nullptr || !device_->status().ok()) {
    enqueue();  // it cannot be recorded
    ++decode_starts_.eager;
    return;
  }
  graph->Launch();
  ++decode_starts_.replayed;
}

void CudaBackend::AppendDecodeKv(const PagedKv& kv, const TensorView& k, const TensorView& v) {
  VNSA_CHECK_EQ(k.rows(), decode_seqs_);
  CudaKvAppendParams params;
  params.kv = kv;
  params.k = ConstRowsOf(k);
  params.v = ConstRowsOf(v);
  params.num_rows = decode_seqs_;
  params.page_tables = DecodeTables();
  params.table_stride = decode_stride_;
  params.kv_lens = DecodeLengths();
  Launched(LaunchKvAppend(params, device_->stream()), "writing keys and values");
}

void CudaBackend::DecodeAttention(const PagedKv& kv, const TensorView& q, const TensorView& out) {
  VNSA_CHECK_EQ(q.rows(), decode_seqs_);
  CudaDecodeParams params;
  params.kv = kv;
  params.q = ConstRowsOf(q);
  params.out = RowsOf(out);
  params.page_tables = DecodeTables();
  params.table_stride = decode_stride_;
  params.kv_lens = DecodeLengths();
  params.num_seqs = decode_seqs_;
  params.max_kv_len = decode_max_len_;
  params.num_q_heads = QueryHeads(q, kv);
  params.scale = LogitScale(kv.head_dim);
  params.scratch = {attention_scratch_.data(), attention_scratch_.bytes()};
  Launched(LaunchDecode(params, device_->stream()), "decode attention");
}

}  // namespace videonsa
