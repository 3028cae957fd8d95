#pragma once

#include "kernels/common/attention_tile.cuh"
#include "kernels/common/wgmma.cuh"

// After wgmma.cuh, which says what the architecture has.
#include "kernels/common/tile_maps.cuh"

/// The body of attention_tile.cuh on the warpgroup products of Hopper: the same policies, the same
/// result for a row whatever its neighbours are. One warpgroup copies keys and values and does
/// nothing else; the others multiply at their own pace, 64 rows each: products of the next keys and
/// of these values run beside the softmax.
namespace videonsa::cuda {

/// A step is kTiles tiles of keys, those that begin on a multiple of kTiles, so that a row meets
/// the same steps whatever CTA it is in.
template <int kDim, int kTiles>
struct WideLayout {
  static_assert(kDim % 64 == 0, "rows of 128 bytes");
  static constexpr int kGroups = 2;  // warpgroups that multiply
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kPieces = kDim / 8;
  static constexpr int kKeys = kTiles * kTileKeys;
  static constexpr int kStepBytes = kKeys * kDim * 2;  // of keys, or of values
  static constexpr int kStages = kTiles == 1 ? 5 : 3;
  static constexpr int kBarriersAt = 2 * kStages * kStepBytes;  // behind keys, then values
  static constexpr int kBorder = 1024;
  static constexpr int kBytes = kBarriersAt + 4 * kStages * 8 + kBorder;
  // What the copying threads give up of the CTA's registers, 168 a thread, goes to the others.
  static constexpr int kCopyRegisters = 24;
  static constexpr int kProductRegisters = 240;
};

#ifdef VIDEONSA_WGMMA
template <int kDim, int kTiles, typename Policy>
class WideBody : private TileRows<kDim, 1, Policy, kTiles * kTileKeys> {
  using Base = TileRows<kDim, 1, Policy, kTiles * kTileKeys>;
  using Layout = WideLayout<kDim, kTiles>;
  using Base::cta_;
  using Base::lane_;
  using Base::out_;
  using Base::policy_;
  using typename Base::Logits;
  using typename Base::Weights;
  static constexpr int kGroups = Layout::kGroups;
  static constexpr int kStages = Layout::kStages;
  static constexpr uint32_t kColumnTile = Layout::kKeys * 128;  // bytes of 64 columns
  using Queries = uint32_t[kDim / 16][4];

 public:
  __device__ WideBody(const Policy& policy, const TileMaps& maps, typename Policy::Cta& cta,
                      char* shared, float scale)
      : Base(policy, cta, scale),
        maps_(maps),
        stages_((SharedAddress(shared) + Layout::kBorder - 1) / Layout::kBorder * Layout::kBorder),
        shared_(shared + (stages_ - SharedAddress(shared))),
        tiles_(policy.steps(cta)),
        before_(cta.first_tile % kTiles),
        steps_((tiles_ + before_ + kTiles - 1) / kTiles) {}

  __device__ void Run() {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kStages; ++i) {
        InitBarrier(Filled(kKeysPart, i), 128);
        InitBarrier(Filled(kValuesPart, i), 128);
        InitBarrier(Read(kKeysPart, i), kGroups * 4);
        InitBarrier(Read(kValuesPart, i), kGroups * 4);
      }
      FenceShared();  // the copy engine sees them
    }
    __syncthreads();
    if (threadIdx.x >= kGroups * 128) {
      GiveUpRegisters<Layout::kCopyRegisters>();
      Copy();
    } else {
      TakeRegisters<Layout::kProductRegisters>();
      this->Reset();
      if (steps_ > 0) Multiply();
      this->Store();
    }
  }

 private:
  enum Part : int { kKeysPart = 0, kValuesPart = 1 };

  __device__ uint32_t Filled(Part part, int stage) const {
    return stages_ + Layout::kBarriersAt + (part * kStages + stage) * 8;
  }
  __device__ uint32_t Read(Part part, int stage) const {
    return Filled(part, stage) + 2 * kStages * 8;
  }
  __device__ static uint32_t Offset(Part part, int step) {
    return (part * kStages + static_cast<uint32_t>(step) % kStages) * Layout::kStepBytes;
  }

  // The copying warpgroup. A step's values come behind the next step's keys.
  __device__ void Copy() const {
    for (int step = 0; step <= steps_; ++step) {
      if (step < steps_) CopyStep(kKeysPart, step);
      if (step > 0) CopyStep(kValuesPart, step - 1);
    }
    WaitCopies<0>();
  }

  __device__ void CopyStep(Part part, int step) const {
    const int stage = step % kStages;
    if (step >= kStages) WaitBarrier(Read(part, stage), (step / kStages - 1) & 1);
    if (CopyWhole(part, step)) return;
    char* to = shared_ + Offset(part, step);
    for (int i = 0; i < kTiles; ++i) {
      const int t = step * kTiles + i - before_;
      typename Base::Tile tile = policy_.Tile(cta_, min(max(t, 0), tiles_ - 1));
      if (t < 0 || t >= tiles_) tile.live = 0;
      CopyRowsAsync<Layout::kPieces>(tile, part == kKeysPart ? tile.k : tile.v,
                                     to + i * kTileKeys * 128, kColumnTile);
    }
    ArriveAfterCopies(Filled(part, stage));
  }

  // Whole tiles are left to the copy engine; parts of them, and keys to be left out, are not for it.
  __device__ bool CopyWhole(Part part, int step) const {
    int rows[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int t = step * kTiles + i - before_;
      if (t < 0 || t >= tiles_) return false;
      const typename Base::Tile tile = policy_.Tile(cta_, t);
      if (tile.live < kTileKeys || tile.keep != nullptr) return false;
      const auto* base = static_cast<const typename Policy::Element*>(maps_.k.base);
      rows[i] = static_cast<int>((tile.k - base) / kDim);
    }
    const uint32_t barrier = Filled(part, step % kStages);
    if (threadIdx.x % 128 != 0) {
      Arrive(barrier);
      return true;
    }
    ArriveExpecting(barrier, Layout::kStepBytes);
    const TileMap& map = part == kKeysPart ? maps_.k : maps_.v;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int column = 0; column < kDim; column += 64) {
        CopyTile(stages_ + Offset(part, step) + i * kTileKeys * 128 + column / 64 * kColumnTile, map,
                 column, rows[i], barrier);
      }
    }
    return true;
  }

  __device__ void WaitFilled(Part part, int step) const {
    WaitBarrier(Filled(part, step % kStages), step / kStages & 1);
  }
  __device__ void NoteRead(Part part, int step) const {
    __syncwarp();
    if (lane_ == 0) Arrive(Read(part, step % kStages));
  }

  __device__ void Multiply() {
    Queries q;
    LoadQueries(q);
    Logits s;
    Weights p;
    float shrink[1][2];
    WaitFilled(kKeysPart, 0);
    FenceShared();
    FenceProducts();
    Score(0, q, s);
    CommitProducts();
    WaitProducts<0>();
    AfterWait(s[0]);
    NoteRead(kKeysPart, 0);
    MaskAndWeigh(0, s, shrink);
    this->Pack(s, p);
    for (int step = 1; step < steps_; ++step) {
      WaitFilled(kKeysPart, step);
      WaitFilled(kValuesPart, step - 1);
      FenceShared();
      FenceProducts();
      Score(step, q, s);
      CommitProducts();
      AddValues(step - 1, p);
      CommitProducts();
      WaitProducts<1>();
      AfterWait(s[0]);
      NoteRead(kKeysPart, step);
      MaskAndWeigh(step, s, shrink);
      WaitProducts<0>();
      AfterWait(out_[0]);
      NoteRead(kValuesPart, step - 1);
      this->Shrink(shrink);
      this->Pack(s, p);
    }
    WaitFilled(kValuesPart, steps_ - 1);
    FenceShared();
    FenceProducts();
    AddValues(steps_ - 1, p);
    CommitProducts();
    WaitProducts<0>();
    AfterWait(out_[0]);
  }

  // Straight into the registers of the product's first operand.
  __device__ void LoadQueries(Queries& q) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Query from = policy_.QueryOf(cta_, this->RowOf(0, half));
      const int64_t at = from.offset + (lane_ & 3) * 2;
      if (from.data != nullptr && from.is_bf16) {
        const auto* x = static_cast<const uint16_t*>(from.data) + at;
#pragma unroll
        for (int i = 0; i < kDim / 8; ++i) {
          q[i / 2][(i & 1) * 2 + half] = *reinterpret_cast<const uint32_t*>(x + i * 8);
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        float2 x = make_float2(0.0f, 0.0f);
        if (from.data != nullptr) {
          x = *reinterpret_cast<const float2*>(static_cast<const float*>(from.data) + at + i * 8);
        }
        q[i / 2][(i & 1) * 2 + half] = PackBf16(x.x, x.y);
      }
    }
  }

  __device__ void Score(int step, const Queries& q, Logits& s) const {
    const uint32_t k = stages_ + Offset(kKeysPart, step);
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      const uint32_t at = k + d / 4 * kColumnTile + d % 4 * 32;
      MultiplyTile<false>(s[0], q[d], TileDescriptor(at, 16, 1024), d > 0);
    }
  }

  __device__ void AddValues(int step, const Weights& p) {
    const uint32_t v = stages_ + Offset(kValuesPart, step);
#pragma unroll
    for (int k = 0; k < Layout::kKeys / 16; ++k) {
      MultiplyTile<true>(out_[0], p[0][k], TileDescriptor(v + k * 2048, kColumnTile, 1024), true);
    }
  }

  template <int kTile>
  __device__ void MaskTile(int step, Logits& s) const {
    const int t = step * kTiles + kTile - before_;
    typename Base::Seen seen = {};
    seen.whole = false;
    if (t >= 0 && t < tiles_) seen = this->SeenOf(policy_.Tile(cta_, t), t);
    if (!__all_sync(kFullWarp, seen.whole)) this->template Mask<kTile * kTileKeys / 8>(seen, s);
  }
  __device__ void MaskAndWeigh(int step, Logits& s, float (&shrink)[1][2]) {
    MaskTile<0>(step, s);
    if constexpr (kTiles == 2) MaskTile<1>(step, s);
    this->Weigh(s, shrink);
  }

  const TileMaps& maps_;
  const uint32_t stages_;  // shared address
  char* const shared_;
  const int tiles_;
  const int before_;  // tiles of step 0 before the first
  const int steps_;
};
#endif  // VIDEONSA_WGMMA

template <int kDim, int kTiles, typename Policy>
__global__ void __launch_bounds__(WideLayout<kDim, kTiles>::kThreads, 1)
    AttendWideKernel(const __grid_constant__ Policy policy, const __grid_constant__ TileMaps maps,
                     float scale) {
#ifdef VIDEONSA_WGMMA
  extern __shared__ __align__(16) char shared[];
  typename Policy::Cta cta;
  if (!policy.template Begin<WideLayout<kDim, kTiles>::kRows>(cta, shared, nullptr)) {
    return;
  }
  WideBody<kDim, kTiles, Policy>(policy, maps, cta, shared, scale).Run();
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
template <int kDim, int kTiles, typename Policy, typename Grid>
cudaError_t LaunchWideTiles(const Policy& policy, float scale, const Grid& grid_of,
                            cudaStream_t stream) {
  if constexpr (sizeof(typename Policy::Element) == 2 && kDim % 64 == 0) {
    if (HasWideTiles()) {
      using Layout = WideLayout<kDim, kTiles>;
      const auto kernel = AttendWideKernel<kDim, kTiles, Policy>;
      const dim3 grid = grid_of(Layout::kRows);
      if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
      const cudaError_t set =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Layout::kBytes);
      if (set != cudaSuccess) return set;
      TileMaps maps;
      cudaError_t made = MakeTileMap<kDim>(policy.KeyBase(), &maps.k);
      if (made == cudaSuccess) made = MakeTileMap<kDim>(policy.ValueBase(), &maps.v);
      if (made != cudaSuccess) return made;
      kernel<<<grid, Layout::kThreads, Layout::kBytes, stream>>>(policy, maps, scale);
      return cudaGetLastError();
    }
  }
  return LaunchTiles<kDim, 2>(policy, scale, {}, grid_of, stream);
}

}  // namespace videonsa::cuda
