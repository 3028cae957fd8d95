#include "kernels/reference/resize.h"

#include <algorithm>
#include <cmath>

namespace videonsa::reference {
namespace {

double Cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return (a + 2) * x * x * x - (a + 3) * x * x + 1;
  if (x < 2) return a * x * x * x - 5 * a * x * x + 8 * a * x - 4 * a;
  return 0;
}

// Weight of every input place for output place `i`; 0 outside the window.
std::vector<double> Weights(int in, int out, int i) {
  std::vector<double> weights(in, 0.0);
  if (in == out) {
    weights[i] = 1;
    return weights;
  }
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);
  const double centre = scale * (i + 0.5);
  const int first = std::max(static_cast<int>(centre - 2 * stretch + 0.5), 0);
  const int end = std::min(static_cast<int>(centre + 2 * stretch + 0.5), in);
  double sum = 0;
  for (int j = first; j < end; ++j) sum += weights[j] = Cubic((j - centre + 0.5) / stretch);
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace

std::vector<double> ResizeBicubic(const std::vector<double>& in, int in_height, int in_width,
                                  int out_height, int out_width) {
  std::vector<double> out;
  for (int y = 0; y < out_height; ++y) {
    const std::vector<double> rows = Weights(in_height, out_height, y);
    for (int x = 0; x < out_width; ++x) {
      const std::vector<double> columns = Weights(in_width, out_width, x);
      double sum = 0;
      for (int j = 0; j < in_height; ++j) {
        for (int i = 0; i < in_width && rows[j] != 0; ++i) {
          sum += rows[j] * columns[i] * in[size_t(j) * in_width + i];
        }
      }
      out.push_back(sum);
    }
  }
  return out;
}

}  // namespace videonsa::reference
