#include <algorithm>
#include <numeric>

#include "kernels/elementwise/cuda_elementwise.h"
#include "kernels/reference/transformer.h"
#include "kernels/vision/cuda_vision.h"
#include "tests/cuda/gpu_check.h"

namespace videonsa::gpu_check {
namespace {

std::string Label(const char* what, int64_t rows, int64_t columns, DType in, DType out) {
  char line[120];
  std::snprintf(line, sizeof(line), "%s %lld x %lld %s -> %s", what, static_cast<long long>(rows),
                static_cast<long long>(columns), Name(in), Name(out));
  return line;
}

// One rounding to the output type and fp32 arithmetic before it.
double RowTolerance(DType out) { return out == DType::kBF16 ? 3e-3 : 2e-6; }

void CheckRows(int rows, int columns, DType in, DType out_type, Verdicts& verdicts,
               std::mt19937& rng) {
  const size_t count = static_cast<size_t>(rows) * columns;
  const std::vector<float> x = Normal(rng, count, 2.0f), y = Normal(rng, count, 2.0f);
  const std::vector<float> w = Normal(rng, static_cast<size_t>(columns));
  const DeviceArray<float> weight(w);
  Matrix a(in, rows, columns, columns + 4), b(in, rows, columns), out(out_type, rows, columns);
  a.Set(x), b.Set(y);
  Must(LaunchRmsNorm({a.Rows(), out.Rows(), weight.get(), 1e-6f, rows, columns}, nullptr), "norm");
  double error = RelativeError(out.Get(), reference::RmsNorm(x, w, 1e-6));
  verdicts.Add(error < RowTolerance(out_type), Label("rms_norm", rows, columns, in, out_type),
               Text("rel %.1e", error));
  Must(LaunchSwiGlu({a.Rows(), b.Rows(), out.Rows(), rows, columns}, nullptr), "swiglu");
  std::vector<double> want(count);
  for (size_t i = 0; i < count; ++i) want[i] = reference::Silu(x[i]) * y[i];
  error = RelativeError(out.Get(), want);
  verdicts.Add(error < RowTolerance(out_type), Label("swiglu", rows, columns, in, out_type),
               Text("rel %.1e", error));
  out.Set(y);
  CudaBiasActParams act;
  act.x = a.Rows();
  act.out = out.Rows();
  act.bias = weight.get();
  act.unary = CudaUnary::kGelu;
  act.accumulate = true;
  act.rows = rows;
  act.columns = columns;
  Must(LaunchBiasAct(act, nullptr), "bias_act");
  for (size_t i = 0; i < count; ++i) {
    want[i] = y[i] + reference::Gelu(double{x[i]} + w[i % static_cast<size_t>(columns)]);
  }
  error = RelativeError(out.Get(), want);
  verdicts.Add(error < RowTolerance(out_type), Label("bias_gelu_add", rows, columns, in, out_type),
               Text("rel %.1e", error));
}

void CheckCopies(int rows, int columns, DType in, DType out_type, Verdicts& verdicts,
                 std::mt19937& rng) {
  const std::vector<float> x = Normal(rng, static_cast<size_t>(rows) * columns);
  Matrix a(in, rows, columns), out(out_type, rows, columns);
  a.Set(x);
  std::vector<int32_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), rng);
  if (rows > 2) order[1] = -1;
  const DeviceArray<int32_t> index(order);
  int wrong = 0;
  for (bool scatter : {false, true}) {
    std::vector<float> want(x.size(), -1.0f);
    out.Set(want);
    CudaCopyRowsParams p;
    p.x = a.Rows();
    p.out = out.Rows();
    (scatter ? p.to : p.from) = index.get();
    p.rows = rows;
    p.columns = columns;
    Must(LaunchCopyRows(p, nullptr), "copy_rows");
    for (int r = 0; r < rows; ++r) {
      const int other = order[static_cast<size_t>(r)];
      if (other < 0) continue;
      std::copy_n(x.begin() + int64_t{scatter ? r : other} * columns, columns,
                  want.begin() + int64_t{scatter ? other : r} * columns);
    }
    const std::vector<float> got = out.Get();
    for (size_t i = 0; i < want.size(); ++i) wrong += got[i] != want[i];
  }
  verdicts.Add(wrong == 0, Label("copy_rows", rows, columns, in, out_type),
               Text("%g numbers wrong", wrong));
}

void CheckRope(int rows, int heads, int head_dim, DType type, Verdicts& verdicts,
               std::mt19937& rng) {
  const int half = head_dim / 2;
  std::vector<int32_t> positions[3], axes(static_cast<size_t>(half)), order;
  std::vector<float> frequencies(static_cast<size_t>(half));
  for (auto& axis : positions) {
    for (int r = 0; r < rows; ++r) axis.push_back(static_cast<int32_t>(rng() % 4000));
  }
  for (int j = 0; j < half; ++j) {
    axes[static_cast<size_t>(j)] = j % 3;
    frequencies[static_cast<size_t>(j)] =
        static_cast<float>(std::pow(1e6, -static_cast<double>(j) / half));
  }
  for (int r = 0; r < rows; ++r) order.push_back(rows - 1 - r);
  const DeviceArray<int32_t> t(positions[0]), h(positions[1]), w(positions[2]), ax(axes);
  const DeviceArray<int32_t> device_order(order);
  const DeviceArray<float> fr(frequencies);
  DeviceArray<float> cosines(static_cast<size_t>(rows) * half), sines(cosines.size());
  CudaRopeAnglesParams angles;
  angles.positions[0] = t.get(), angles.positions[1] = h.get(), angles.positions[2] = w.get();
  angles.frequencies = fr.get();
  angles.axes = ax.get();
  angles.cos = cosines.get();
  angles.sin = sines.get();
  angles.rows = rows;
  angles.half = half;
  Must(LaunchRopeAngles(angles, nullptr), "rope_angles");
  const std::vector<float> x = Normal(rng, static_cast<size_t>(rows) * heads * head_dim);
  Matrix a(type, rows, int64_t{heads} * head_dim);
  a.Set(x);
  CudaRopeParams rope;
  rope.x = a.Rows();
  rope.cos = cosines.get();
  rope.sin = sines.get();
  rope.order = device_order.get();
  rope.rows = rows;
  rope.num_heads = heads;
  rope.head_dim = head_dim;
  Must(LaunchRope(rope, nullptr), "rope");
  std::vector<double> turns;
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < half; ++j) {
      const int axis = axes[static_cast<size_t>(j)];
      const int p = positions[axis][static_cast<size_t>(order[static_cast<size_t>(r)])];
      turns.push_back(frequencies[static_cast<size_t>(j)] * static_cast<float>(p));
    }
  }
  const double error = RelativeError(a.Get(), reference::Rope(x, turns, heads, head_dim));
  verdicts.Add(error < (type == DType::kBF16 ? 3e-3 : 2e-6),
               Label("rope", rows, int64_t{heads} * head_dim, type, type), Text("rel %.1e", error));
}

void CheckSegments(const std::vector<int32_t>& segments, int heads, int head_dim, DType type,
                   DType out_type, Verdicts& verdicts, std::mt19937& rng) {
  const int rows = segments.back();
  const int64_t width = int64_t{heads} * head_dim;
  const std::vector<float> x = Normal(rng, static_cast<size_t>(rows) * 3 * width, 1.3f);
  Matrix qkv(type, rows, 3 * width), out(out_type, rows, width);
  qkv.Set(x);
  const DeviceArray<int32_t> device_segments(segments);
  CudaVisionAttentionParams p;
  p.qkv = qkv.Rows();
  p.out = out.Rows();
  p.segments = device_segments.get();
  p.num_segments = static_cast<int>(segments.size()) - 1;
  for (size_t i = 0; i + 1 < segments.size(); ++i) {
    p.max_segment_rows = std::max(p.max_segment_rows, segments[i + 1] - segments[i]);
  }
  p.num_heads = heads;
  p.head_dim = head_dim;
  const double scale = 1.0 / std::sqrt(head_dim);
  p.scale = static_cast<float>(scale);
  Must(LaunchVisionAttention(p, nullptr), "vision_attention");
  const double error =
      RelativeError(out.Get(), reference::VisionAttention(x, segments, heads, head_dim, scale));
  verdicts.Add(
      error <= std::max(Tolerance(type), Tolerance(out_type)),
      Label("vision_attention", rows, width, type, out_type),
      Text("%g segments, longest %g, rel %.2e", p.num_segments, p.max_segment_rows, error));
}

}  // namespace

void CheckElementwise(Verdicts& verdicts) {
  std::mt19937 rng(3);
  for (DType in : {DType::kF32, DType::kBF16}) {
    for (DType out : {DType::kF32, DType::kBF16}) {
      for (auto [rows, columns] : {std::pair{1, 3584}, {7, 64}, {33, 1280}, {5, 1}, {3, 1023}}) {
        CheckRows(rows, columns, in, out, verdicts, rng);
        CheckCopies(rows, columns, in, out, verdicts, rng);
      }
    }
    CheckRope(9, 32, 128, in, verdicts, rng);
    CheckRope(130, 3, 80, in, verdicts, rng);
    CheckRope(1, 6, 16, in, verdicts, rng);
  }
}

void CheckVision(Verdicts& verdicts) {
  std::mt19937 rng(5);
  for (DType type : {DType::kBF16, DType::kF32}) {
    for (DType out : {DType::kF32, DType::kBF16}) {
      CheckSegments({0, 64, 128, 144, 208}, 4, 80, type, out, verdicts, rng);
      CheckSegments({0, 300, 301, 400}, 3, 80, type, out, verdicts, rng);
      CheckSegments({0, 1}, 4, 16, type, out, verdicts, rng);
      CheckSegments({0, 16, 20, 84, 100}, 4, 64, type, out, verdicts, rng);
      CheckSegments({0, 257}, 2, 128, type, out, verdicts, rng);
    }
  }
}

}  // namespace videonsa::gpu_check
