#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/common/cuda_launch.h"

/// What the GPU checks share: arrays on the device, random numbers, verdicts.
namespace videonsa::gpu_check {

/// Ends the program on any CUDA error: nothing after it could be believed.
inline void Must(int status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("FATAL %s: %s\n", what, cudaGetErrorString(static_cast<cudaError_t>(status)));
  std::fflush(stdout);
  std::exit(2);
}

/// Verdicts of all checks; one printed line each.
struct Verdicts {
  int passed = 0;
  int failed = 0;

  void Add(bool ok, const std::string& name, const std::string& detail) {
    ++(ok ? passed : failed);
    std::printf("%s %s: %s\n", ok ? "ok  " : "FAIL", name.c_str(), detail.c_str());
    std::fflush(stdout);
  }
};

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    void* memory = nullptr;
    Must(cudaMalloc(&memory, std::max<size_t>(16, count * sizeof(T))), "cudaMalloc");
    data_ = static_cast<T*>(memory);
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) { Set(host); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void Set(const std::vector<T>& host) {
    Must(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  void Fill(int byte) { Must(cudaMemset(data_, byte, count_ * sizeof(T)), "memset"); }
  std::vector<T> Get() const {
    Must(cudaDeviceSynchronize(), "kernel");
    std::vector<T> host(count_);
    Must(cudaMemcpy(host.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return host;
  }
  T* get() const { return data_; }
  size_t size() const { return count_; }

 private:
  T* data_ = nullptr;
  size_t count_;
};

/// A matrix on the device, F32 or BF16, made from and read back as floats. Starts as NaN.
class Matrix {
 public:
  Matrix(DType dtype, int64_t rows, int64_t columns, int64_t stride = 0)
      : dtype_(dtype),
        rows_(rows),
        columns_(columns),
        stride_(stride > 0 ? stride : columns),
        data_(static_cast<size_t>(rows * stride_) * SizeOf(dtype)) {
    data_.Fill(0xFF);
  }
  void Set(const std::vector<float>& host) {
    std::vector<uint8_t> bytes = data_.Get();
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) {
        const float x = host[static_cast<size_t>(r * columns_ + c)];
        const size_t at = static_cast<size_t>(r * stride_ + c);
        if (dtype_ == DType::kBF16) {
          reinterpret_cast<uint16_t*>(bytes.data())[at] = RoundToBf16(x);
        } else {
          reinterpret_cast<float*>(bytes.data())[at] = x;
        }
      }
    }
    data_.Set(bytes);
  }
  std::vector<float> Get() const {
    const std::vector<uint8_t> bytes = data_.Get();
    std::vector<float> host;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) {
        const size_t at = static_cast<size_t>(r * stride_ + c);
        host.push_back(dtype_ == DType::kBF16
                           ? FromBf16(reinterpret_cast<const uint16_t*>(bytes.data())[at])
                           : reinterpret_cast<const float*>(bytes.data())[at]);
      }
    }
    return host;
  }
  /// Rows from `row` on.
  CudaRows Rows(int64_t row = 0, int64_t column = 0) const {
    const size_t offset = static_cast<size_t>(row * stride_ + column) * SizeOf(dtype_);
    return {data_.get() + offset, dtype_, stride_};
  }

 private:
  DType dtype_;
  int64_t rows_, columns_, stride_;
  DeviceArray<uint8_t> data_;
};

inline float Bf16(float x) { return FromBf16(RoundToBf16(x)); }

/// Normal numbers, rounded to bf16 so that every type holds them exactly.
inline std::vector<float> Normal(std::mt19937& rng, size_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> x(count);
  for (float& one : x) one = Bf16(normal(rng));
  return x;
}

/// ||got - want|| / ||want||; infinite if any number of `got` is not finite.
inline double RelativeError(const std::vector<float>& got, const std::vector<double>& want) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::sqrt(difference / std::max(size, 1e-30));
}

/// Tolerances of issue 7: a tensor against fp64.
inline double Tolerance(DType math) { return math == DType::kBF16 ? 1e-2 : 1e-4; }
inline const char* Name(DType dtype) { return dtype == DType::kBF16 ? "bf16" : "f32"; }

inline std::string Text(const char* format, double a, double b = 0, double c = 0) {
  char line[200];
  std::snprintf(line, sizeof(line), format, a, b, c);
  return line;
}

/// Longer prompts and larger vocabularies are left out (sanitizers take a hundred times as long).
inline int most_tokens = 1 << 30;

void CheckElementwise(Verdicts& verdicts);
void CheckMatVec(Verdicts& verdicts);
void CheckVision(Verdicts& verdicts);
void CheckDense(Verdicts& verdicts);
void CheckCausalNsa(Verdicts& verdicts);
void CheckReleasedNsa(Verdicts& verdicts);
void CheckChoice(Verdicts& verdicts);
void CheckSampling(Verdicts& verdicts);

}  // namespace videonsa::gpu_check
