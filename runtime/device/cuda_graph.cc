#include "runtime/device/cuda_graph.h"

#include <cuda_runtime_api.h>

namespace videonsa {

std::unique_ptr<CudaGraph> CudaGraph::Record(CudaDevice& device,
                                             absl::FunctionRef<void()> enqueue) {
  if (cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  enqueue();
  cudaGraph_t recorded = nullptr;
  cudaGraphExec_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(device.stream(), &recorded);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&graph, recorded, 0);
  if (recorded != nullptr) cudaGraphDestroy(recorded);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return std::unique_ptr<CudaGraph>(new CudaGraph(device, graph));
}

CudaGraph::~CudaGraph() { cudaGraphExecDestroy(graph_); }

void CudaGraph::Launch() {
  device_.Note(cudaGraphLaunch(graph_, device_.stream()), "starting a recorded step");
}

}  // namespace videonsa
