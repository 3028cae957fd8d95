#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/common/tile_rows.cuh"

/// Softmax attention of a tile of rows over a list of key tiles: one body for every branch.
///
/// A CTA owns a few rows (a row is one query head of one token) and walks over steps; a step is a
/// tile of 64 keys and values. What rows, keys and visibility are is said by a policy, copied into
/// the kernel's parameters:
///
///   using Element              element type of K and V
///   struct Cta                 what one CTA knows
///   bool Begin<kRows>(cta, overlay, extra)   sets up a CTA (all threads call); false: nothing to
///   do;
///                              `overlay` is shared memory until Begin returns, `extra` for good
///   int steps(cta)
///   KeyTile<Element> Tile(cta, step)
///   int Position(cta, row)     an integer that Range understands; -1 = the row is dead
///   Query QueryOf(cta, row)    where the row's query lies
///   KeyRange Range(cta, tile, step, row, position)   columns of the tile that the row sees
///   RowOutput OutputOf(cta, row)    where the row goes
///
/// A row is a function of its own query and the tiles it sees in ascending order, so neither its
/// neighbours nor the tiles that only they see change a bit of it.
namespace videonsa::cuda {

/// Shared memory of the tensor-core body. Rows are padded to an odd number of 16-byte pieces, so
/// that eight rows of a matrix lie in different banks.
template <int kDim, int kMTiles>
struct TileLayout {
  static constexpr int kRows = 64 * kMTiles;
  static constexpr int kPieces = kDim / 8;
  static constexpr int kStride = (kPieces | 1) * 8;  // elements
  static constexpr int kTileBytes = kTileKeys * kStride * 2;
  static constexpr int kQueryBytes = kRows * kStride * 2;
  static constexpr int kBytes = kQueryBytes + 4 * kTileBytes;
};

template <int kDim, int kMTiles, typename Policy>
class TileBody : private TileRows<kDim, kMTiles, Policy> {
  using Base = TileRows<kDim, kMTiles, Policy>;
  using Layout = TileLayout<kDim, kMTiles>;
  using Base::cta_;
  using Base::kDimTiles;
  using Base::kKeyTiles;
  using Base::kRowsPerWarp;
  using Base::lane_;
  using Base::out_;
  using Base::policy_;
  using Base::warp_;
  using typename Base::Logits;
  using typename Base::Weights;

 public:
  __device__ TileBody(const Policy& policy, typename Policy::Cta& cta, char* shared, float scale)
      : Base(policy, cta, scale),
        q_(reinterpret_cast<uint16_t*>(shared)),
        stages_(shared + Layout::kQueryBytes) {}

  __device__ void Run() {
    const int steps = policy_.steps(cta_);
    if (steps > 0) LoadKeys(0);
    CommitCopies();
    LoadQueries();
    this->Reset();
    for (int step = 0; step < steps; ++step) {
      if (step + 1 < steps) LoadKeys(step + 1);
      CommitCopies();
      WaitCopies<1>();
      __syncthreads();
      Step(step);
      __syncthreads();
    }
    WaitCopies<0>();
    this->Store();
  }

 private:
  __device__ uint16_t* KeyRows(int step) const {
    return reinterpret_cast<uint16_t*>(stages_ + (step & 1) * 2 * Layout::kTileBytes);
  }
  __device__ uint16_t* ValueRows(int step) const {
    return reinterpret_cast<uint16_t*>(stages_ + ((step & 1) * 2 + 1) * Layout::kTileBytes);
  }

  __device__ void LoadKeys(int step) const {
    const typename Base::Tile tile = policy_.Tile(cta_, step);
    uint16_t* k = KeyRows(step);
    uint16_t* v = ValueRows(step);
#pragma unroll
    for (int i = threadIdx.x; i < kTileKeys * Layout::kPieces; i += kTileThreads) {
      const int key = i / Layout::kPieces, piece = i % Layout::kPieces;
      const bool live = key < tile.live && (tile.keep == nullptr || tile.keep[key] != 0);
      const int64_t from = live ? key * tile.row_stride + piece * 8 : 0;
      const int to = key * Layout::kStride + piece * 8;
      CopyAsync16(k + to, tile.k + from, live);
      CopyAsync16(v + to, tile.v + from, live);
    }
  }

  // A thread takes one row or a part of it, so that the row is looked up once.
  __device__ void LoadQueries() const {
    constexpr int kParts = kTileThreads / Layout::kRows;
    const int row = threadIdx.x % Layout::kRows, part = threadIdx.x / Layout::kRows;
    const Query q = policy_.QueryOf(cta_, row);
#pragma unroll
    for (int i = 0; i < Layout::kPieces; i += kParts) {
      const int piece = i + part;
      if (piece >= Layout::kPieces) break;
      *reinterpret_cast<uint4*>(q_ + row * Layout::kStride + piece * 8) =
          LoadEightBf16(q.data, q.is_bf16, q.offset + piece * 8);
    }
  }

  __device__ void Step(int step) {
    const typename Base::Tile tile = policy_.Tile(cta_, step);
    const typename Base::Seen seen = this->SeenOf(tile, step);
    if (!__any_sync(kFullWarp, seen.any)) return;
    Logits s;
    Score(KeyRows(step), s);
    if (!__all_sync(kFullWarp, seen.whole)) this->Mask(seen, s);
    float shrink[kMTiles][2];
    this->Weigh(s, shrink);
    this->Shrink(shrink);
    Weights p;
    this->Pack(s, p);
    AddValues(ValueRows(step), p);
  }

  __device__ void Score(const uint16_t* k, Logits& s) const {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][n][i] = 0;
      }
    }
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t a[kMTiles][4];
#pragma unroll
      for (int m = 0; m < kMTiles; ++m) {
        const int row = warp_ * kRowsPerWarp + m * 16 + (lane_ & 15);
        LoadMatrix4(a[m], q_ + row * Layout::kStride + d * 16 + (lane_ >> 4) * 8);
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        const int key = n * 8 + (lane_ & 7) + ((lane_ >> 4) << 3);
        LoadMatrix4(b, k + key * Layout::kStride + d * 16 + ((lane_ >> 3) & 1) * 8);
#pragma unroll
        for (int m = 0; m < kMTiles; ++m) {
          MultiplyAdd(s[m][n], a[m], b[0], b[1]);
          MultiplyAdd(s[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void AddValues(const uint16_t* v, const Weights& p) {
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kDimTiles; n += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(
            b, v + (k * 16 + (lane_ & 15)) * Layout::kStride + n * 8 + (lane_ >> 4) * 8);
#pragma unroll
        for (int m = 0; m < kMTiles; ++m) {
          MultiplyAdd(out_[m][n], p[m][k], b[0], b[1]);
          MultiplyAdd(out_[m][n + 1], p[m][k], b[2], b[3]);
        }
      }
    }
  }

  uint16_t* const q_;
  char* const stages_;
};

template <int kDim, int kMTiles, typename Policy>
__global__ void __launch_bounds__(kTileThreads, kMTiles == 1 ? 3 : 2)
    AttendTileKernel(const __grid_constant__ Policy policy, float scale, int shared_bytes) {
  extern __shared__ __align__(16) char shared[];
  using Layout = TileLayout<kDim, kMTiles>;
  typename Policy::Cta cta;
  if (!policy.template Begin<Layout::kRows>(cta, shared, shared + shared_bytes)) return;
  TileBody<kDim, kMTiles, Policy>(policy, cta, shared, scale).Run();
}

/// Rows of one CTA of the fp32 body; a warp works on one row at a time.
inline constexpr int kExactRows = 16;

/// The same in fp32 throughout, for the exact mode: obvious rather than fast.
template <int kDim, typename Policy>
__global__ void __launch_bounds__(kTileThreads)
    AttendExactKernel(const __grid_constant__ Policy policy, float scale, int shared_bytes) {
  extern __shared__ __align__(16) char shared[];
  constexpr int kPerLane = (kDim + 31) / 32;
  float* queries = reinterpret_cast<float*>(shared);
  typename Policy::Cta cta;
  if (!policy.template Begin<kExactRows>(cta, shared, shared + shared_bytes)) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float c = scale * kLog2E;
  for (int row = warp; row < kExactRows; row += kTileThreads / 32) {
    const int position = policy.Position(cta, row);
    if (position < 0) continue;
    float* q = queries + row * kDim;
    const Query from = policy.QueryOf(cta, row);
    for (int d = lane; d < kDim; d += 32) {
      q[d] = from.data == nullptr ? 0.0f : LoadElement(from.data, from.is_bf16, from.offset + d);
    }
    __syncwarp();
    float top = kMinusInf, sum = 0, out[kPerLane] = {};
    for (int step = 0; step < policy.steps(cta); ++step) {
      const auto tile = policy.Tile(cta, step);
      const KeyRange range = policy.Range(cta, tile, step, row, position);
      if (range.hi <= range.lo) continue;
      float s[2];
      for (int i = 0; i < 2; ++i) {
        const int key = lane + 32 * i;
        float dot = 0;
        if (key < tile.live && (tile.keep == nullptr || tile.keep[key] != 0)) {
          const float* k = tile.k + key * tile.row_stride;
#pragma unroll 8
          for (int d = 0; d < kDim; ++d) dot = fmaf(q[d], k[d], dot);
        }
        // The same product as in the scores of blocks, whatever is contracted.
        s[i] = key >= range.lo && key < range.hi ? __fmul_rn(dot, c) : kMinusInf;
      }
      const float next = fmaxf(top, WarpMax(fmaxf(s[0], s[1])));
      const float shrink = exp2f(top - next);
      top = next;
      for (int i = 0; i < 2; ++i) s[i] = exp2f(s[i] - top);
      sum = fmaf(sum, shrink, WarpSum(s[0] + s[1]));
      for (int i = 0; i < kPerLane; ++i) out[i] *= shrink;
      for (int key = range.lo < 0 ? 0 : range.lo; key < range.hi && key < kTileKeys; ++key) {
        const float p = __shfl_sync(kFullWarp, key < 32 ? s[0] : s[1], key % 32);
        if (key >= tile.live || (tile.keep != nullptr && tile.keep[key] == 0)) continue;
        const float* v = tile.v + key * tile.row_stride;
        for (int i = 0; i < kPerLane; ++i) {
          if (lane + 32 * i < kDim) out[i] = fmaf(p, v[lane + 32 * i], out[i]);
        }
      }
    }
    const RowOutput to = policy.OutputOf(cta, row);
    if (to.lse2 != nullptr && lane == 0) *to.lse2 = sum > 0 ? top + log2f(sum) : kMinusInf;
    if (to.top2 != nullptr && lane == 0) *to.top2 = top;
    if (to.data == nullptr) continue;
    const float factor = sum > 0 ? to.factor / sum : 0.0f;
    for (int i = 0; i < kPerLane && lane + 32 * i < kDim; ++i) {
      const int64_t at = to.offset + lane + 32 * i;
      const float before = to.add != nullptr ? to.add[lane + 32 * i] : 0.0f;
      StoreElement(to.data, to.is_bf16, at, fmaf(out[i], factor, before));
    }
  }
}

/// Bytes of shared memory that a policy's Begin wants: lent to it, and kept.
struct PolicyShared {
  int overlay = 0;
  int extra = 0;
};

/// Launches the body that fits the policy's element type; grid_of(rows) gives the grid for CTAs of
/// that many rows.
template <int kDim, int kMTiles, typename Policy, typename Grid>
cudaError_t LaunchTiles(const Policy& policy, float scale, PolicyShared wanted, const Grid& grid_of,
                        cudaStream_t stream) {
  constexpr bool kExact = sizeof(typename Policy::Element) == 4;
  constexpr int kRows = kExact ? kExactRows : TileLayout<kDim, kMTiles>::kRows;
  const dim3 grid = grid_of(kRows);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  const void* kernel;
  int own = 0;
  if constexpr (kExact) {
    kernel = reinterpret_cast<const void*>(&AttendExactKernel<kDim, Policy>);
    own = kExactRows * kDim * 4;
  } else {
    kernel = reinterpret_cast<const void*>(&AttendTileKernel<kDim, kMTiles, Policy>);
    own = TileLayout<kDim, kMTiles>::kBytes;
  }
  own = (std::max(own, wanted.overlay) + 15) / 16 * 16;
  const int bytes = own + wanted.extra;
  const cudaError_t set =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (set != cudaSuccess) return set;
  void* args[] = {const_cast<Policy*>(&policy), &scale, &own};
  return cudaLaunchKernel(kernel, grid, dim3(kTileThreads), args, static_cast<size_t>(bytes),
                          stream);
}

/// Calls body(integral_constant) for a supported head size; cudaErrorInvalidValue otherwise.
template <typename Body>
cudaError_t DispatchHeadDim(int head_dim, const Body& body) {
  switch (head_dim) {
    case 16:
      return body(std::integral_constant<int, 16>{});
    case 32:
      return body(std::integral_constant<int, 32>{});
    case 64:
      return body(std::integral_constant<int, 64>{});
    case 80:
      return body(std::integral_constant<int, 80>{});
    case 128:
      return body(std::integral_constant<int, 128>{});
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace videonsa::cuda
