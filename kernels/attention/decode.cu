#include "kernels/attention/cuda_attention.h"
#include "kernels/attention/paged_rows.cuh"

namespace videonsa {
namespace cuda {
namespace {

// Keys of one CTA; fixed, so that a row is summed alike whatever its batch mates are.
constexpr int kSplitKeys = 8 * kTileKeys;
constexpr int kWarps = kTileThreads / 32;
constexpr int kPieceKeys = 32;  // keys a warp multiplies at a time
constexpr int kDecodeRows = 16;

// Softmax state of one row over one run of keys: head_dim sums, then maximum (log2) and sum.
constexpr int StateFloats(int head_dim) { return head_dim + 2; }

struct DecodeTask {
  CudaDecodeParams p;
  int group = 0;
  int max_splits = 0;

  __device__ int Seq() const { return static_cast<int>(blockIdx.z); }
  __device__ int KvHead() const { return static_cast<int>(blockIdx.y); }
  __device__ int FirstKey() const { return static_cast<int>(blockIdx.x) * kSplitKeys; }
  __device__ float* State(int seq, int split, int head) const {
    return static_cast<float*>(p.scratch.data) +
           ((int64_t{seq} * max_splits + split) * p.num_q_heads + head) *
               StateFloats(p.kv.head_dim);
  }
  template <typename T>
  __device__ void KeysOf(int key, const T*& k, const T*& v) const {
    const int64_t page = p.page_tables[Seq() * p.table_stride + key / kTileKeys];
    const int64_t at =
        ((page * p.kv.num_kv_heads + KvHead()) * kTileKeys + key % kTileKeys) * p.kv.head_dim;
    k = static_cast<const T*>(p.kv.k_pages) + at;
    v = static_cast<const T*>(p.kv.v_pages) + at;
  }
};

// One warp over its pieces of the keys of a CTA; the rows are the query heads of one KV head.
template <int kDim>
class DecodeWarp {
  static constexpr int kPieces = kDim / 8;
  static constexpr int kStride = (kPieces | 1) * 8;
  static constexpr int kKeyTiles = kPieceKeys / 8;
  static constexpr int kDimTiles = kDim / 8;

 public:
  static constexpr int kTileBytes = kPieceKeys * kStride * 2;
  static constexpr int kBytes = kDecodeRows * kStride * 2 + kWarps * 2 * kTileBytes;

  __device__ DecodeWarp(const DecodeTask& task, char* shared)
      : task_(task),
        q_(reinterpret_cast<uint16_t*>(shared)),
        k_(reinterpret_cast<uint16_t*>(shared + kDecodeRows * kStride * 2 +
                                       threadIdx.x / 32 * 2 * kTileBytes)),
        v_(k_ + kTileBytes / 2),
        lane_(threadIdx.x % 32),
        log2_scale_(task.p.scale * kLog2E) {}

  __device__ void Run(int kv_len) {
    const int end = min(kv_len, task_.FirstKey() + kSplitKeys);
    int key = task_.FirstKey() + static_cast<int>(threadIdx.x / 32) * kPieceKeys;
    Load<true>(key, end);
    Load<false>(key, end);
    LoadQueries();
    __syncthreads();
    for (; key < end; key += kWarps * kPieceKeys) {
      WaitCopies<1>();
      __syncwarp();
      float s[kKeyTiles][4];
      Score(s);
      __syncwarp();
      Load<true>(key + kWarps * kPieceKeys, end);
      uint32_t p[kKeyTiles / 2][4];
      Softmax(end - key, s, p);
      WaitCopies<1>();
      __syncwarp();
      AddValues(p);
      __syncwarp();
      Load<false>(key + kWarps * kPieceKeys, end);
    }
    WaitCopies<0>();
    __syncthreads();
  }

  // Every warp leaves its state in shared memory.
  __device__ void Leave(float* states) {
    for (int half = 0; half < 2; ++half) {
      float sum = sum_[half];
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      const int row = lane_ / 4 + half * 8;
      float* to = states + (threadIdx.x / 32 * kDecodeRows + row) * StateFloats(kDim);
      for (int n = 0; n < kDimTiles; ++n) {
        to[n * 8 + (lane_ & 3) * 2] = out_[n][half * 2];
        to[n * 8 + (lane_ & 3) * 2 + 1] = out_[n][half * 2 + 1];
      }
      if ((lane_ & 3) == 0) {
        to[kDim] = top_[half] == kMinusInf ? kMinusInf : top_[half] * log2_scale_;
        to[kDim + 1] = sum;
      }
    }
  }

 private:
  template <bool kKeys>
  __device__ void Load(int key, int end) const {
    if (key < end) {
      const __nv_bfloat16 *k, *v;
      task_.KeysOf(key, k, v);  // a piece lies in one page
      const __nv_bfloat16* from = kKeys ? k : v;
      uint16_t* to = kKeys ? k_ : v_;
#pragma unroll 4
      for (int i = lane_; i < kPieceKeys * kPieces; i += 32) {
        const int row = i / kPieces, piece = i % kPieces;
        const bool live = key + row < end;
        CopyAsync16(to + row * kStride + piece * 8, from + (live ? row * kDim + piece * 8 : 0),
                    live);
      }
    }
    CommitCopies();
  }

  __device__ void LoadQueries() const {
    const bool is_bf16 = task_.p.q.dtype == DType::kBF16;
    for (int i = threadIdx.x; i < kDecodeRows * kPieces; i += kTileThreads) {
      const int row = i / kPieces, piece = i % kPieces;
      const int64_t head = int64_t{task_.KvHead()} * task_.group + row;
      const void* data = row < task_.group ? task_.p.q.data : nullptr;
      *reinterpret_cast<uint4*>(q_ + row * kStride + piece * 8) = LoadEightBf16(
          data, is_bf16, task_.Seq() * task_.p.q.row_stride + head * kDim + piece * 8);
    }
  }

  __device__ void Score(float (&s)[kKeyTiles][4]) const {
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = 0;
    }
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t a[4];
      LoadMatrix4(a, q_ + (lane_ & 15) * kStride + d * 16 + (lane_ >> 4) * 8);
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        const int key = n * 8 + (lane_ & 7) + ((lane_ >> 4) << 3);
        LoadMatrix4(b, k_ + key * kStride + d * 16 + ((lane_ >> 3) & 1) * 8);
        MultiplyAdd(s[n], a, b[0], b[1]);
        MultiplyAdd(s[n + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ void Softmax(int keys, float (&s)[kKeyTiles][4], uint32_t (&p)[kKeyTiles / 2][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = top_[half];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = s[n][half * 2 + i];
          x = n * 8 + (lane_ & 3) * 2 + i < keys ? x : kMinusInf;
          top = fmaxf(top, x);
        }
      }
      top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 2));
      const float base = top * log2_scale_;  // a piece has at least one key
      const float shrink = FastExp2(fmaf(top_[half], log2_scale_, -base));
      top_[half] = top;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = s[n][half * 2 + i];
          x = FastExp2(fmaf(x, log2_scale_, -base));
          sum += x;
        }
        p[n / 2][(n & 1) * 2 + half] = PackBf16(s[n][half * 2], s[n][half * 2 + 1]);
      }
      sum_[half] = fmaf(sum_[half], shrink, sum);
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) {
        out_[n][half * 2] *= shrink;
        out_[n][half * 2 + 1] *= shrink;
      }
    }
  }

  __device__ void AddValues(const uint32_t (&p)[kKeyTiles / 2][4]) {
#pragma unroll
    for (int k = 0; k < kPieceKeys / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kDimTiles; n += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, v_ + (k * 16 + (lane_ & 15)) * kStride + n * 8 + (lane_ >> 4) * 8);
        MultiplyAdd(out_[n], p[k], b[0], b[1]);
        MultiplyAdd(out_[n + 1], p[k], b[2], b[3]);
      }
    }
  }

  const DecodeTask& task_;
  uint16_t* const q_;
  uint16_t* const k_;
  uint16_t* const v_;
  const int lane_;
  const float log2_scale_;
  float top_[2] = {kMinusInf, kMinusInf};
  float sum_[2] = {};
  float out_[kDimTiles][4] = {};
};

// Joins `count` states of one row in order; weight(i) scales state i. Threads share the columns.
template <typename StateAt>
__device__ void JoinStates(int count, int head_dim, const StateAt& state, float* to) {
  float top = kMinusInf;
  for (int i = 0; i < count; ++i) top = fmaxf(top, state(i)[head_dim]);
  for (int d = threadIdx.x % 32; d < StateFloats(head_dim); d += 32) {
    if (d == head_dim) {
      to[d] = top;
      continue;
    }
    float sum = 0;
    for (int i = 0; i < count; ++i) {
      const float* one = state(i);
      if (one[head_dim] > kMinusInf) sum = fmaf(exp2f(one[head_dim] - top), one[d], sum);
    }
    to[d] = sum;
  }
}

template <int kDim>
__global__ void __launch_bounds__(kTileThreads)
    DecodeTileKernel(const __grid_constant__ DecodeTask task) {
  extern __shared__ __align__(16) char shared[];
  const int kv_len = task.p.kv_lens[task.Seq()];
  if (task.FirstKey() >= kv_len) return;
  DecodeWarp<kDim> warp(task, shared);
  warp.Run(kv_len);
  float* states = reinterpret_cast<float*>(shared);
  warp.Leave(states);
  __syncthreads();
  for (int row = threadIdx.x / 32; row < task.group; row += kWarps) {
    JoinStates(
        kWarps, kDim, [&](int i) { return states + (i * kDecodeRows + row) * StateFloats(kDim); },
        task.State(task.Seq(), blockIdx.x, task.KvHead() * task.group + row));
  }
}

// fp32 pages: a warp takes one query head at a time over all keys of the CTA.
__global__ void __launch_bounds__(kTileThreads)
    DecodeExactKernel(const __grid_constant__ DecodeTask task) {
  constexpr int kPerLane = 4;
  const int kv_len = task.p.kv_lens[task.Seq()];
  if (task.FirstKey() >= kv_len) return;
  const int end = min(kv_len, task.FirstKey() + kSplitKeys);
  const int lane = threadIdx.x % 32, head_dim = task.p.kv.head_dim;
  for (int row = threadIdx.x / 32; row < task.group; row += kWarps) {
    const int head = task.KvHead() * task.group + row;
    float q[kPerLane], out[kPerLane] = {}, top = kMinusInf, sum = 0;
    for (int i = 0; i < kPerLane; ++i) {
      const int d = lane + 32 * i;
      q[i] = d < head_dim ? LoadElement(task.p.q.data, task.p.q.dtype == DType::kBF16,
                                        task.Seq() * task.p.q.row_stride + head * head_dim + d)
                          : 0.0f;
    }
    for (int key = task.FirstKey(); key < end; ++key) {
      const float *k, *v;
      task.KeysOf(key, k, v);
      float dot = 0;
      for (int i = 0; i < kPerLane; ++i) {
        if (lane + 32 * i < head_dim) dot = fmaf(q[i], k[lane + 32 * i], dot);
      }
      const float s = WarpSum(dot) * task.p.scale * kLog2E;
      const float next = fmaxf(top, s);
      const float shrink = exp2f(top - next), weight = exp2f(s - next);
      top = next;
      sum = fmaf(sum, shrink, weight);
      for (int i = 0; i < kPerLane; ++i) {
        if (lane + 32 * i < head_dim) out[i] = fmaf(weight, v[lane + 32 * i], out[i] * shrink);
      }
    }
    float* to = task.State(task.Seq(), blockIdx.x, head);
    for (int i = 0; i < kPerLane; ++i) {
      if (lane + 32 * i < head_dim) to[lane + 32 * i] = out[i];
    }
    if (lane == 0) to[head_dim] = top, to[head_dim + 1] = sum;
  }
}

// CTA: one (query head, sequence). Runs of keys are joined in order.
__global__ void __launch_bounds__(kTileThreads)
    DecodeJoinKernel(const __grid_constant__ DecodeTask task) {
  extern __shared__ float weights[];  // [splits]
  const int head = blockIdx.x, seq = blockIdx.y, head_dim = task.p.kv.head_dim;
  const int splits = (task.p.kv_lens[seq] + kSplitKeys - 1) / kSplitKeys;
  __shared__ float tops[kWarps];
  float top = kMinusInf;
  for (int i = threadIdx.x; i < splits; i += kTileThreads) {
    weights[i] = task.State(seq, i, head)[head_dim];
    top = fmaxf(top, weights[i]);
  }
  top = WarpMax(top);
  if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
  __syncthreads();
  top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
  for (int i = threadIdx.x; i < splits; i += kTileThreads) weights[i] = exp2f(weights[i] - top);
  __syncthreads();
  float total = 0;
  for (int i = 0; i < splits; ++i) {
    total = fmaf(weights[i], task.State(seq, i, head)[head_dim + 1], total);
  }
  for (int d = threadIdx.x; d < head_dim; d += kTileThreads) {
    float sum = 0;
#pragma unroll 8
    for (int i = 0; i < splits; ++i) sum = fmaf(weights[i], task.State(seq, i, head)[d], sum);
    StoreElement(task.p.out.data, task.p.out.dtype == DType::kBF16,
                 seq * task.p.out.row_stride + int64_t{head} * head_dim + d,
                 splits > 0 ? sum / total : 0.0f);
  }
}

int Splits(int max_kv_len) { return (max_kv_len + kSplitKeys - 1) / kSplitKeys; }

cudaError_t LaunchSplits(const DecodeTask& task, dim3 grid, cudaStream_t stream) {
  if (task.p.kv.dtype == DType::kF32) {
    DecodeExactKernel<<<grid, kTileThreads, 0, stream>>>(task);
    return cudaGetLastError();
  }
  return DispatchHeadDim(task.p.kv.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    const int states = kWarps * kDecodeRows * StateFloats(kDim) * 4;
    const int bytes = std::max(DecodeWarp<kDim>::kBytes, states);
    const cudaError_t set = cudaFuncSetAttribute(
        DecodeTileKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (set != cudaSuccess) return set;
    DecodeTileKernel<kDim><<<grid, kTileThreads, bytes, stream>>>(task);
    return cudaGetLastError();
  });
}

}  // namespace
}  // namespace cuda

size_t CudaDecodeScratchBytes(int num_seqs, int max_kv_len, int num_q_heads, int head_dim) {
  return sizeof(float) * num_seqs * static_cast<size_t>(cuda::Splits(max_kv_len)) * num_q_heads *
         cuda::StateFloats(head_dim);
}

CudaStatus LaunchDecode(const CudaDecodeParams& p, CudaStream stream) {
  if (p.num_seqs <= 0) return cudaSuccess;
  if (!cuda::ShapeFits(p.kv, p.num_q_heads) || p.kv.head_dim > 128) return cudaErrorInvalidValue;
  if (p.scratch.bytes <
      CudaDecodeScratchBytes(p.num_seqs, p.max_kv_len, p.num_q_heads, p.kv.head_dim)) {
    return cudaErrorInvalidValue;
  }
  const cuda::DecodeTask task{p, p.num_q_heads / p.kv.num_kv_heads, cuda::Splits(p.max_kv_len)};
  const auto seqs = static_cast<unsigned>(p.num_seqs);
  const auto splits = static_cast<unsigned>(task.max_splits);
  if (splits > 0) {
    const dim3 grid(splits, static_cast<unsigned>(p.kv.num_kv_heads), seqs);
    const cudaError_t launched = cuda::LaunchSplits(task, grid, stream);
    if (launched != cudaSuccess) return launched;
  }
  const dim3 grid(static_cast<unsigned>(p.num_q_heads), seqs);
  // The unrolled sum reads weights by fours.
  const size_t weight_bytes = (splits + 3) / 4 * 4 * sizeof(float);
  cuda::DecodeJoinKernel<<<grid, cuda::kTileThreads, weight_bytes, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace videonsa
