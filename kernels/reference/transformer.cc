#include "kernels/reference/transformer.h"

#include <algorithm>
#include <cmath>

namespace videonsa::reference {

std::vector<double> Linear(const std::vector<float>& x, const std::vector<float>& w,
                           const std::vector<float>& bias, int64_t m, int64_t n, int64_t k) {
  std::vector<double> out;
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t column = 0; column < n; ++column) {
      double sum = bias.empty() ? 0 : bias[column];
      for (int64_t i = 0; i < k; ++i) {
        sum += static_cast<double>(x[row * k + i]) * w[column * k + i];
      }
      out.push_back(sum);
    }
  }
  return out;
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

double Gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }

std::vector<double> RmsNorm(const std::vector<float>& x, const std::vector<float>& weight,
                            double eps) {
  const size_t columns = weight.size();
  std::vector<double> out;
  for (size_t row = 0; row < x.size() / columns; ++row) {
    double squares = 0;
    for (size_t i = 0; i < columns; ++i) {
      squares += static_cast<double>(x[row * columns + i]) * x[row * columns + i];
    }
    const double factor = 1 / std::sqrt(squares / static_cast<double>(columns) + eps);
    for (size_t i = 0; i < columns; ++i) out.push_back(x[row * columns + i] * factor * weight[i]);
  }
  return out;
}

std::vector<double> Rope(const std::vector<float>& x, const std::vector<double>& angles,
                         int64_t heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  const int64_t rows = static_cast<int64_t>(angles.size()) / half;
  std::vector<double> out(x.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t at = (row * heads + head) * head_dim;
      for (int64_t d = 0; d < half; ++d) {
        const double c = std::cos(angles[row * half + d]), s = std::sin(angles[row * half + d]);
        out[at + d] = x[at + d] * c - x[at + half + d] * s;
        out[at + half + d] = x[at + half + d] * c + x[at + d] * s;
      }
    }
  }
  return out;
}

std::vector<double> VisionAttention(const std::vector<float>& qkv,
                                    const std::vector<int32_t>& segments, int64_t heads,
                                    int64_t head_dim, double scale) {
  const int64_t rows = segments.back();
  const auto part = [&](int64_t row, int64_t which, int64_t head) {
    return qkv.data() + ((row * 3 + which) * heads + head) * head_dim;
  };
  std::vector<double> out(static_cast<size_t>(rows * heads * head_dim), 0);
  for (size_t segment = 0; segment + 1 < segments.size(); ++segment) {
    for (int64_t row = segments[segment]; row < segments[segment + 1]; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        std::vector<double> weights;
        for (int64_t key = segments[segment]; key < segments[segment + 1]; ++key) {
          double dot = 0;
          for (int64_t d = 0; d < head_dim; ++d) {
            dot += static_cast<double>(part(row, 0, head)[d]) * part(key, 1, head)[d];
          }
          weights.push_back(dot * scale);
        }
        const double top = *std::max_element(weights.begin(), weights.end());
        double sum = 0;
        for (double& weight : weights) sum += weight = std::exp(weight - top);
        for (size_t i = 0; i < weights.size(); ++i) {
          const float* v = part(segments[segment] + static_cast<int64_t>(i), 2, head);
          for (int64_t d = 0; d < head_dim; ++d) {
            out[static_cast<size_t>((row * heads + head) * head_dim + d)] +=
                weights[i] / sum * v[d];
          }
        }
      }
    }
  }
  return out;
}

}  // namespace videonsa::reference
