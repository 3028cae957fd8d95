#pragma once

#include <cstdint>
#include <vector>

/// Slow, obvious oracles of the row-wise kernels, fp64 inside. Matrices are compact, row major.
namespace videonsa::reference {

/// x [m, k] times w [n, k] transposed, plus bias [n] (may be empty): [m, n].
std::vector<double> Linear(const std::vector<float>& x, const std::vector<float>& w,
                           const std::vector<float>& bias, int64_t m, int64_t n, int64_t k);

/// x / (1 + e^-x).
double Silu(double x);

/// x/2 (1 + erf(x / sqrt 2)).
double Gelu(double x);

/// x * rsqrt(mean(x^2) + eps) * weight for every row of x [rows, weight.size()].
std::vector<double> RmsNorm(const std::vector<float>& x, const std::vector<float>& weight,
                            double eps);

/// Rotates pairs (d, d + head_dim / 2) of every head of x [rows, heads, head_dim] by
/// angles [rows, head_dim / 2].
std::vector<double> Rope(const std::vector<float>& x, const std::vector<double>& angles,
                         int64_t heads, int64_t head_dim);

/// Bidirectional softmax attention inside segments; qkv [rows, 3, heads, head_dim], segments:
/// first rows and, last, the row count. Result [rows, heads, head_dim].
std::vector<double> VisionAttention(const std::vector<float>& qkv,
                                    const std::vector<int32_t>& segments, int64_t heads,
                                    int64_t head_dim, double scale);

}  // namespace videonsa::reference
