#pragma once

#include "kernels/common/attention_tile.cuh"
#include "kernels/common/wgmma.cuh"

/// The body of attention_tile.cuh on the warpgroup products of Hopper: the same policies, the same
/// result for a row whatever its neighbours are. Products of the next tile's keys and of this
/// tile's values run beside the softmax.
namespace videonsa::cuda {

inline constexpr int kWideGroups = 3;  ///< warpgroups of a CTA, 64 rows each
inline constexpr int kWideThreads = kWideGroups * 128;

template <int kDim>
struct WideLayout {
  static_assert(kDim % 64 == 0, "rows of 128 bytes");
  static constexpr int kRows = 64 * kWideGroups;
  static constexpr int kPieces = kDim / 8;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kStages = 4;  // read by values, by keys, on the way, on the way
  static constexpr int kBorder = 1024;
  static constexpr int kBytes = kStages * 2 * kTileBytes + kBorder;
};

#ifdef VIDEONSA_WGMMA
template <int kDim, typename Policy>
class WideBody : private TileRows<kDim, 1, Policy> {
  using Base = TileRows<kDim, 1, Policy>;
  using Layout = WideLayout<kDim>;
  using Base::cta_;
  using Base::lane_;
  using Base::out_;
  using Base::policy_;
  using typename Base::Logits;
  using typename Base::Weights;
  static constexpr uint32_t kColumnTile = kTileKeys * 128;  // bytes of 64 columns

 public:
  __device__ WideBody(const Policy& policy, typename Policy::Cta& cta, char* shared, float scale)
      : Base(policy, cta, scale),
        stages_((SharedAddress(shared) + Layout::kBorder - 1) / Layout::kBorder * Layout::kBorder),
        shared_(shared + (stages_ - SharedAddress(shared))) {}

  __device__ void Run() {
    const int steps = policy_.steps(cta_);
    this->Reset();
    if (steps > 0) Multiply(steps);
    this->Store();
  }

 private:
  __device__ void Multiply(int steps) {
    uint32_t q[kDim / 16][4];
    LoadKeys(0);
    CommitCopies();
    if (steps > 1) LoadKeys(1);
    CommitCopies();
    LoadQueries(q);
    Logits s;
    Weights p;
    float shrink[1][2];
    Arrive(0, steps);
    FenceProducts();
    Score(0, q, s);
    CommitProducts();
    WaitProducts<0>();
    AfterWait(s[0]);
    MaskAndWeigh(0, s, shrink);
    this->Pack(s, p);
    for (int step = 1; step < steps; ++step) {
      Arrive(step, steps);
      FenceProducts();
      Score(step, q, s);
      CommitProducts();
      AddValues(step - 1, p);
      CommitProducts();
      WaitProducts<1>();
      AfterWait(s[0]);
      MaskAndWeigh(step, s, shrink);
      WaitProducts<0>();
      AfterWait(out_[0]);
      this->Shrink(shrink);
      this->Pack(s, p);
    }
    FenceProducts();
    AddValues(steps - 1, p);
    CommitProducts();
    WaitProducts<0>();
    AfterWait(out_[0]);
  }

  // The step's tile is there for everybody, and the one after the next is on its way: its room was
  // last read by the values of the step before the last, which all warps have waited for.
  __device__ void Arrive(int step, int steps) const {
    WaitCopies<1>();
    FenceShared();
    __syncthreads();
    if (step + 2 < steps) LoadKeys(step + 2);
    CommitCopies();
  }

  __device__ static uint32_t KeyOffset(int step) {
    return static_cast<uint32_t>(step % Layout::kStages) * 2 * Layout::kTileBytes;
  }

  __device__ void LoadKeys(int step) const {
    const typename Base::Tile tile = policy_.Tile(cta_, step);
    char* k = shared_ + KeyOffset(step);
#pragma unroll
    for (int i = threadIdx.x; i < kTileKeys * Layout::kPieces; i += kWideThreads) {
      const int key = i / Layout::kPieces, piece = i % Layout::kPieces;
      const bool live = key < tile.live && (tile.keep == nullptr || tile.keep[key] != 0);
      const int64_t from = live ? key * tile.row_stride + piece * 8 : 0;
      char* to = k + piece / 8 * kColumnTile + SwizzledOffset(key, piece % 8);
      CopyAsync16(to, tile.k + from, live);
      CopyAsync16(to + Layout::kTileBytes, tile.v + from, live);
    }
  }

  // Straight into the registers of the product's first operand.
  __device__ void LoadQueries(uint32_t (&q)[kDim / 16][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Query from = policy_.QueryOf(cta_, this->RowOf(0, half));
      const int64_t at = from.offset + (lane_ & 3) * 2;
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        uint32_t pair = 0;
        if (from.data != nullptr && from.is_bf16) {
          pair = *reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(from.data) + at +
                                                    i * 8);
        } else if (from.data != nullptr) {
          const float2 x =
              *reinterpret_cast<const float2*>(static_cast<const float*>(from.data) + at + i * 8);
          pair = PackBf16(x.x, x.y);
        }
        q[i / 2][(i & 1) * 2 + half] = pair;
      }
    }
  }

  __device__ void Score(int step, const uint32_t (&q)[kDim / 16][4], Logits& s) const {
    const uint32_t k = stages_ + KeyOffset(step);
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      const uint32_t at = k + d / 4 * kColumnTile + d % 4 * 32;
      MultiplyTile<false>(s[0], q[d], TileDescriptor(at, 16, 1024), d > 0);
    }
  }

  __device__ void AddValues(int step, const Weights& p) {
    const uint32_t v = stages_ + KeyOffset(step) + Layout::kTileBytes;
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      MultiplyTile<true>(out_[0], p[0][k], TileDescriptor(v + k * 2048, kColumnTile, 1024), true);
    }
  }

  __device__ void MaskAndWeigh(int step, Logits& s, float (&shrink)[1][2]) {
    const typename Base::Seen seen = this->SeenOf(policy_.Tile(cta_, step), step);
    if (!__all_sync(kFullWarp, seen.whole)) this->Mask(seen, s);
    this->Weigh(s, shrink);
  }

  const uint32_t stages_;  // shared address
  char* const shared_;
};
#endif  // VIDEONSA_WGMMA

template <int kDim, typename Policy>
__global__ void __launch_bounds__(kWideThreads, 1)
    AttendWideKernel(const __grid_constant__ Policy policy, float scale) {
#ifdef VIDEONSA_WGMMA
  extern __shared__ __align__(16) char shared[];
  typename Policy::Cta cta;
  if (!policy.template Begin<WideLayout<kDim>::kRows>(cta, shared, nullptr)) return;
  WideBody<kDim, Policy>(policy, cta, shared, scale).Run();
#else
  __trap();  // never launched: the launcher asks for the architecture
#endif
}

/// Whether this device runs the wide body, and the build has it.
inline bool HasWideTiles() {
#ifndef VIDEONSA_SM90A
  return false;
#endif
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major == 9;
}

/// As LaunchTiles, by the wide body where the device and the head size have one. For policies that
/// need no shared memory of their own.
template <int kDim, typename Policy, typename Grid>
cudaError_t LaunchWideTiles(const Policy& policy, float scale, const Grid& grid_of,
                            cudaStream_t stream) {
  if constexpr (sizeof(typename Policy::Element) == 2 && kDim % 64 == 0) {
    if (HasWideTiles()) {
      using Layout = WideLayout<kDim>;
      const auto kernel = AttendWideKernel<kDim, Policy>;
      const dim3 grid = grid_of(Layout::kRows);
      if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
      const cudaError_t set =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Layout::kBytes);
      if (set != cudaSuccess) return set;
      kernel<<<grid, kWideThreads, Layout::kBytes, stream>>>(policy, scale);
      return cudaGetLastError();
    }
  }
  return LaunchTiles<kDim, 2>(policy, scale, {}, grid_of, stream);
}

}  // namespace videonsa::cuda
