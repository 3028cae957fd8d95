#pragma once

#include <memory>

#include "absl/functional/function_ref.h"
#include "runtime/device/cuda_device.h"

struct CUgraphExec_st;

namespace videonsa {

/// Work recorded once and started again with one call; addresses and sizes are those of the record.
///
/// Lifetime: the device outlives it. Owner: the worker thread.
class CudaGraph {
 public:
  /// Records what `enqueue` puts on the device's stream, without running it. Null if it cannot be
  /// recorded.
  static std::unique_ptr<CudaGraph> Record(CudaDevice& device, absl::FunctionRef<void()> enqueue);
  ~CudaGraph();
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void Launch();

 private:
  CudaGraph(CudaDevice& device, CUgraphExec_st* graph) : device_(device), graph_(graph) {}

  CudaDevice& device_;
  CUgraphExec_st* graph_;
};

}  // namespace videonsa
