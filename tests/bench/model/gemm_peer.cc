#include "tests/bench/model/gemm_peer.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

namespace videonsa::bench {

double OneDnnSeconds(int64_t m, int64_t n, int64_t k, bool bf16, int threads, int repeats) {
  using Memory = dnnl::memory;
  omp_set_num_threads(threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto type = bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
  const dnnl::matmul::primitive_desc desc(
      {Memory::desc({m, k}, type, Memory::format_tag::ab),
       Memory::desc({k, n}, type, Memory::format_tag::any),
       Memory::desc({m, n}, Memory::data_type::f32, Memory::format_tag::ab)},
      engine);
  const dnnl::matmul matmul(desc);
  Memory x(desc.src_desc(), engine), w(desc.weights_desc(), engine), out(desc.dst_desc(), engine);
  const std::unordered_map<int, Memory> args = {
      {DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, out}};
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    matmul.execute(stream, args);
    stream.wait();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

}  // namespace videonsa::bench
