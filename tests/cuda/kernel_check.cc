#include <cstdlib>
#include <cstring>

#include "tests/cuda/gpu_check.h"

/// Compares every CUDA kernel with its fp64 oracle on one GPU.
///
/// Usage: cuda_kernel_check [--most N] [name...]: elementwise vision dense choice causal released
///        sampling matvec; N: no longer prompts and no larger vocabularies.
/// One line a check, last line `N passed, N failed`; exit 1 if any failed, 2 on a CUDA error.
int main(int argc, char** argv) {
  using namespace videonsa::gpu_check;  // NOLINT: this program is about nothing else
  int device = 0;
  cudaDeviceProp properties;
  Must(cudaGetDevice(&device), "cudaGetDevice");
  Must(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  std::printf("device %s, sm_%d%d\n", properties.name, properties.major, properties.minor);
  const struct {
    const char* name;
    void (*run)(Verdicts&);
  } groups[] = {
      {"elementwise", CheckElementwise}, {"vision", CheckVision},    {"dense", CheckDense},
      {"choice", CheckChoice},           {"causal", CheckCausalNsa}, {"released", CheckReleasedNsa},
      {"sampling", CheckSampling},       {"matvec", CheckMatVec}};
  int names = 1;
  if (argc > 2 && std::strcmp(argv[1], "--most") == 0) {
    most_tokens = std::atoi(argv[2]);
    names = 3;
  }
  Verdicts verdicts;
  for (const auto& group : groups) {
    bool wanted = argc == names;
    for (int i = names; i < argc; ++i) wanted |= std::strcmp(argv[i], group.name) == 0;
    if (wanted) group.run(verdicts);
  }
  std::printf("%d passed, %d failed\n", verdicts.passed, verdicts.failed);
  return verdicts.failed == 0 ? 0 : 1;
}
