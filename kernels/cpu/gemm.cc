#include "kernels/cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_epilogue.h"
#include "kernels/cpu/gemm_tile.h"

namespace videonsa {
namespace {

// Rows of a tile are multiplied in pieces of these sizes, largest first: few enough that the code
// for all of them is built at load.
constexpr int64_t kPieces[] = {128, 64, 32, 16, 8, 4, 2, 1};
constexpr int kNumPieces = 8;
constexpr int64_t kTileRows = 128;
// A run of panels holds at most this many weights (512 KiB in bf16): it stays in the second-level
// cache while tiles of rows pass by.
constexpr int64_t kSliceWeights = 256 << 10;
constexpr int64_t kMaxSlicePanels = 8;

[[noreturn]] void Die(const char* what, const char* why) {
  std::fprintf(stderr, "gemm: %s: %s\n", what, why);
  std::abort();
}

dnnl::memory::data_type TypeOf(DType dtype) {
  return dtype == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// Floats that one thread uses for finished tiles.
struct AlignedFloats {
  explicit AlignedFloats(size_t count)
      : data(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64))) {
    if (data == nullptr) Die("tiles", "out of memory");
  }
  ~AlignedFloats() { std::free(data); }
  AlignedFloats(AlignedFloats&& other) noexcept : data(std::exchange(other.data, nullptr)) {}
  float* data;
};

// One oneDNN product [m, k] x [k, n] -> [m, n] with its per-thread handles.
struct Product {
  struct Handles {
    dnnl::memory x, w, out, scratch;
    std::vector<uint8_t> scratch_bytes;
  };
  dnnl::matmul primitive;
  std::vector<Handles> threads;
};

using ProductKey = std::tuple<DType, int64_t, int64_t, int64_t, int64_t>;  // dtype m n k x_stride

// oneDNN's C++ wrapper throws; every use is in this class, behind functions that do not.
class Products {
 public:
  explicit Products(int num_threads) : engine_(dnnl::engine::kind::cpu, 0) {
    for (int thread = 0; thread < num_threads; ++thread) streams_.emplace_back(engine_);
  }

  // Whether this machine multiplies panels of `dtype` with the batch-reduce kernels, whose order
  // of summation does not depend on the shape.
  bool TakesPanels(DType dtype) {
    try {
      const auto desc = Describe(dtype, 64, 64, 64, 64);
      return std::strncmp(desc.impl_info_str(), "brg", 3) == 0;
    } catch (const dnnl::error&) {
      return false;
    }
  }

  Product* Find(const ProductKey& key) {
    const auto found = products_.find(key);
    return found == products_.end() ? nullptr : &found->second;
  }

  Product* Build(const ProductKey& key) {
    const auto [dtype, m, n, k, x_stride] = key;
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    try {
      const auto desc = Describe(dtype, m, n, k, x_stride);
      Product product;
      product.primitive = dnnl::matmul(desc);
      for (size_t thread = 0; thread < streams_.size(); ++thread) {
        Product::Handles handles;
        handles.x = dnnl::memory(desc.src_desc(), engine_, DNNL_MEMORY_NONE);
        handles.w = dnnl::memory(desc.weights_desc(), engine_, DNNL_MEMORY_NONE);
        handles.out = dnnl::memory(desc.dst_desc(), engine_, DNNL_MEMORY_NONE);
        const size_t bytes = desc.scratchpad_desc().get_size();
        if (bytes > 0) {
          handles.scratch_bytes.resize(bytes + 64);
          uint8_t* data = handles.scratch_bytes.data();
          data += (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64;
          handles.scratch = dnnl::memory(desc.scratchpad_desc(), engine_, data);
        }
        product.threads.push_back(std::move(handles));
      }
      omp_set_num_threads(before);
      return &products_.emplace(key, std::move(product)).first->second;
    } catch (const dnnl::error& error) {
      Die("cannot build a product", error.what());
    }
  }

  void Execute(Product& product, int thread, const void* x, const void* w, float* out) {
    Product::Handles& handles = product.threads[static_cast<size_t>(thread)];
    dnnl_exec_arg_t args[4];
    handles.x.set_data_handle(const_cast<void*>(x));
    handles.w.set_data_handle(const_cast<void*>(w));
    handles.out.set_data_handle(out);
    args[0] = {DNNL_ARG_SRC, handles.x.get()};
    args[1] = {DNNL_ARG_WEIGHTS, handles.w.get()};
    args[2] = {DNNL_ARG_DST, handles.out.get()};
    int count = 3;
    if (!handles.scratch_bytes.empty()) {
      args[count++] = {DNNL_ARG_SCRATCHPAD, handles.scratch.get()};
    }
    const dnnl_status_t status = dnnl_primitive_execute(
        product.primitive.get(), streams_[static_cast<size_t>(thread)].get(), count, args);
    if (status != dnnl_success)
      Die("product", status == dnnl_out_of_memory ? "out of memory" : "status");
  }

 private:
  dnnl::matmul::primitive_desc Describe(DType dtype, int64_t m, int64_t n, int64_t k,
                                        int64_t x_stride) {
    using Tag = dnnl::memory::format_tag;
    const dnnl::memory::data_type type = TypeOf(dtype);
    const Tag panels = dtype == DType::kBF16 ? Tag::BA16a64b2a : Tag::BA16a64b;
    const dnnl::memory::desc x({m, k}, type, dnnl::memory::dims{x_stride, 1});
    const dnnl::memory::desc w({k, n}, type, panels);
    const dnnl::memory::desc out({m, n}, dnnl::memory::data_type::f32, Tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return dnnl::matmul::primitive_desc({x, w, out}, attributes, engine_);
  }

  dnnl::engine engine_;
  std::vector<dnnl::stream> streams_;
  std::map<ProductKey, Product> products_;
};

// How a product of [m, k] with n features is cut into tasks.
struct Cut {
  int64_t slice_panels;
  int64_t num_slices;
  int64_t num_tiles;

  Cut(int64_t m, const PackedMatrix& w) {
    slice_panels = std::clamp<int64_t>(kSliceWeights / (w.padded_k() * PackedMatrix::kPanel), 1,
                                       kMaxSlicePanels);
    num_slices = (w.num_panels() + slice_panels - 1) / slice_panels;
    num_tiles = (m + kTileRows - 1) / kTileRows;
  }
  int64_t SliceColumns(const PackedMatrix& w, int64_t slice) const {
    const int64_t begin = slice * slice_panels * PackedMatrix::kPanel;
    return std::min(slice_panels * PackedMatrix::kPanel, w.n - begin);
  }
};

// Code for every piece size of one slice width.
using Pieces = Product* [kNumPieces];

}  // namespace

struct Gemm::State {
  State(ThreadPool& pool_in, GemmEngine engine_in)
      : pool(pool_in), products(pool_in.num_threads()) {
    const bool panels = products.TakesPanels(DType::kF32);
    if (engine_in == GemmEngine::kOneDnn && !panels) Die("engine", "oneDNN takes no panels here");
    one_dnn = engine_in != GemmEngine::kPortable && panels;
    for (int thread = 0; thread < pool.num_threads(); ++thread) {
      tiles.emplace_back(2 * kTileRows * kMaxSlicePanels * PackedMatrix::kPanel);
    }
  }

  void FindPieces(DType dtype, int64_t columns, int64_t k, int64_t x_stride, Pieces& pieces) {
    if (!one_dnn) return;
    for (int piece = 0; piece < kNumPieces; ++piece) {
      const ProductKey key{dtype, kPieces[piece], columns, k, x_stride};
      pieces[piece] = products.Find(key);
      if (pieces[piece] == nullptr) pieces[piece] = products.Build(key);
    }
  }

  // Rows [0, rows) of x times the slice, into out [rows, columns].
  void Multiply(const Pieces& pieces, int thread, const PackedMatrix& w, int64_t first_panel,
                int64_t columns, const char* x, int64_t x_stride, int64_t rows, float* out) {
    const void* slice = w.panel(first_panel);
    if (!one_dnn) {
      MultiplyTile({reinterpret_cast<const float*>(x), x_stride, rows,
                    static_cast<const float*>(slice), w.k, w.padded_k(), columns, out});
      return;
    }
    omp_set_num_threads(1);
    const int64_t element = static_cast<int64_t>(SizeOf(w.dtype));
    for (int piece = 0; piece < kNumPieces; ++piece) {
      while (rows >= kPieces[piece]) {
        products.Execute(*pieces[piece], thread, x, slice, out);
        x += kPieces[piece] * x_stride * element;
        out += kPieces[piece] * columns;
        rows -= kPieces[piece];
      }
    }
  }

  ThreadPool& pool;
  Products products;
  bool one_dnn = false;
  std::vector<AlignedFloats> tiles;  // two finished tiles a thread
};

Gemm::Gemm(ThreadPool& pool, GemmEngine engine) : state_(std::make_unique<State>(pool, engine)) {}
Gemm::~Gemm() = default;

bool Gemm::MachineHasBf16() {
#if defined(__x86_64__)
  static const bool has =
      __builtin_cpu_supports("avx512bf16") != 0 && Products(1).TakesPanels(DType::kBF16);
  return has;
#else
  return false;
#endif
}

void Gemm::Prepare(const PackedMatrix& w) {
  const Cut cut(1, w);
  Pieces pieces;
  state_->FindPieces(w.dtype, cut.SliceColumns(w, 0), w.k, w.k, pieces);
  state_->FindPieces(w.dtype, cut.SliceColumns(w, cut.num_slices - 1), w.k, w.k, pieces);
}

void Gemm::Run(const GemmParams& p) {
  if (p.m == 0) return;
  const Cut cut(p.m, p.w);
  Pieces whole, last;
  state_->FindPieces(p.w.dtype, cut.SliceColumns(p.w, 0), p.w.k, p.x_stride, whole);
  state_->FindPieces(p.w.dtype, cut.SliceColumns(p.w, cut.num_slices - 1), p.w.k, p.x_stride, last);
  const int64_t element = static_cast<int64_t>(SizeOf(p.w.dtype));
  const auto task = [&](int64_t index, int thread) {
    const int64_t slice = index / cut.num_tiles;
    const int64_t row = index % cut.num_tiles * kTileRows;
    const int64_t rows = std::min(kTileRows, p.m - row);
    const int64_t first_panel = slice * cut.slice_panels;
    const int64_t column = first_panel * PackedMatrix::kPanel;
    const int64_t columns = cut.SliceColumns(p.w, slice);
    float* tile = state_->tiles[static_cast<size_t>(thread)].data;
    state_->Multiply(slice + 1 == cut.num_slices ? last : whole, thread, p.w, first_panel, columns,
                     static_cast<const char*>(p.x) + row * p.x_stride * element, p.x_stride, rows,
                     tile);
    FinishTile({tile, rows, columns, p.bias == nullptr ? nullptr : p.bias + column, p.epilogue,
                static_cast<char*>(p.out) +
                    (row * p.out_stride + column) * static_cast<int64_t>(SizeOf(p.out_dtype)),
                p.out_dtype, p.out_stride});
  };
  state_->pool.ParallelFor(cut.num_slices * cut.num_tiles, std::ref(task));
}

void Gemm::Run(const SwiGluParams& p) {
  if (p.m == 0) return;
  const Cut cut(p.m, p.gate);
  Pieces whole, last;
  state_->FindPieces(p.gate.dtype, cut.SliceColumns(p.gate, 0), p.gate.k, p.x_stride, whole);
  state_->FindPieces(p.gate.dtype, cut.SliceColumns(p.gate, cut.num_slices - 1), p.gate.k,
                     p.x_stride, last);
  const int64_t element = static_cast<int64_t>(SizeOf(p.gate.dtype));
  const auto task = [&](int64_t index, int thread) {
    const int64_t slice = index / cut.num_tiles;
    const int64_t row = index % cut.num_tiles * kTileRows;
    const int64_t rows = std::min(kTileRows, p.m - row);
    const int64_t first_panel = slice * cut.slice_panels;
    const int64_t column = first_panel * PackedMatrix::kPanel;
    const int64_t columns = cut.SliceColumns(p.gate, slice);
    const Pieces& pieces = slice + 1 == cut.num_slices ? last : whole;
    const char* x = static_cast<const char*>(p.x) + row * p.x_stride * element;
    float* gate = state_->tiles[static_cast<size_t>(thread)].data;
    float* up = gate + kTileRows * kMaxSlicePanels * PackedMatrix::kPanel;
    state_->Multiply(pieces, thread, p.gate, first_panel, columns, x, p.x_stride, rows, gate);
    state_->Multiply(pieces, thread, p.up, first_panel, columns, x, p.x_stride, rows, up);
    FinishSwiGlu({gate, up, rows, columns, p.gate_bias == nullptr ? nullptr : p.gate_bias + column,
                  p.up_bias == nullptr ? nullptr : p.up_bias + column,
                  static_cast<char*>(p.out) +
                      (row * p.out_stride + column) * static_cast<int64_t>(SizeOf(p.out_dtype)),
                  p.out_dtype, p.out_stride});
  };
  state_->pool.ParallelFor(cut.num_slices * cut.num_tiles, std::ref(task));
}

}  // namespace videonsa
