#include <cstring>

#include "kernels/elementwise/cuda_matvec.h"
#include "kernels/reference/transformer.h"
#include "tests/cuda/gpu_check.h"

namespace videonsa::gpu_check {
namespace {

struct Shape {
  int rows, n, k;
};

enum class Form { kPlain, kBias, kAccumulate, kGated };

void CheckOne(const Shape& s, Form form, DType out_type, Verdicts& verdicts, std::mt19937& rng) {
  const auto product = [&](const std::vector<float>& x, const std::vector<float>& w, int row,
                           int column) {
    double sum = 0;
    for (int i = 0; i < s.k; ++i) {
      sum +=
          double{x[static_cast<size_t>(row * s.k + i)]} * w[static_cast<size_t>(column * s.k + i)];
    }
    return sum;
  };
  const std::vector<float> x = Normal(rng, static_cast<size_t>(s.rows) * s.k);
  const std::vector<float> w = Normal(rng, static_cast<size_t>(s.n) * s.k);
  const std::vector<float> gate = Normal(rng, w.size(), 0.1f);
  const std::vector<float> bias = Normal(rng, static_cast<size_t>(s.n), 3.0f);
  const std::vector<float> before = Normal(rng, static_cast<size_t>(s.rows) * s.n, 3.0f);
  Matrix dx(DType::kBF16, s.rows, s.k, s.k + 8), dw(DType::kBF16, s.n, s.k, s.k + 16);
  Matrix dg(DType::kBF16, s.n, s.k, s.k + 16), db(out_type, 1, s.n);
  Matrix out(out_type, s.rows, s.n, s.n + 3), alone(out_type, s.rows, s.n, s.n + 3);
  dx.Set(x), dw.Set(w), dg.Set(gate), db.Set(bias), out.Set(before), alone.Set(before);
  CudaMatVecParams p;
  p.w = dw.Rows().data;
  p.w_stride = s.k + 16;
  p.n = s.n;
  p.k = s.k;
  if (form == Form::kGated) p.gate = dg.Rows().data;
  if (form == Form::kBias) p.bias = db.Rows().data;
  p.accumulate = form == Form::kAccumulate;
  p.x = dx.Rows();
  p.out = out.Rows();
  p.rows = s.rows;
  Must(LaunchMatVec(p, nullptr), "LaunchMatVec");
  p.rows = 1;
  for (int row = 0; row < s.rows; ++row) {
    p.x = dx.Rows(row);
    p.out = alone.Rows(row);
    Must(LaunchMatVec(p, nullptr), "LaunchMatVec");
  }
  std::vector<double> want;
  for (int row = 0; row < s.rows; ++row) {
    for (int column = 0; column < s.n; ++column) {
      double one = product(x, w, row, column);
      if (form == Form::kBias) one += bias[static_cast<size_t>(column)];
      if (form == Form::kAccumulate) one += before[static_cast<size_t>(row * s.n + column)];
      if (form == Form::kGated) one *= reference::Silu(product(x, gate, row, column));
      want.push_back(one);
    }
  }
  const std::vector<float> got = out.Get(), single = alone.Get();
  const double error = RelativeError(got, want);
  const bool same = std::memcmp(got.data(), single.data(), got.size() * sizeof(float)) == 0;
  constexpr const char* kNames[] = {"plain", "with bias", "added", "gated"};
  char name[100];
  std::snprintf(name, sizeof(name), "matvec %s, %d x %d x %d -> %s", kNames[static_cast<int>(form)],
                s.rows, s.n, s.k, Name(out_type));
  verdicts.Add(error < (out_type == DType::kBF16 ? 3e-3 : 3e-6) && same, name,
               Text("rel %.1e", error) + (same ? ", rows as alone" : ", ROWS DIFFER FROM ALONE"));
}

}  // namespace

void CheckMatVec(Verdicts& verdicts) {
  std::mt19937 rng(19);
  for (Form form : {Form::kPlain, Form::kBias, Form::kAccumulate, Form::kGated}) {
    for (DType out : {DType::kF32, DType::kBF16}) {
      for (const Shape& s : {Shape{1, 100, 3584}, Shape{2, 9, 8}, Shape{3, 17, 264},
                             Shape{4, 33, 2600}, Shape{1, 6, 18944}}) {
        CheckOne(s, form, out, verdicts, rng);
      }
    }
  }
}

}  // namespace videonsa::gpu_check
