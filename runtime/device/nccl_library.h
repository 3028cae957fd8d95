#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct CUstream_st;
struct ncclComm;

namespace videonsa {

/// The functions of NCCL in use, by their own names. Declared here and not by nccl.h, so that every
/// build has them and a test can stand in for the library.
///
/// Source: the C interface of NCCL 2 (nccl.h): results and enumerations are ints.
struct NcclLibrary {
  static constexpr int kSuccess = 0;
  static constexpr int kInternalError = 3;
  static constexpr int kInProgress = 7;
  static constexpr int kUint8 = 1;    // ncclDataType_t
  static constexpr int kFloat32 = 7;  // ncclDataType_t
  static constexpr int kSum = 0;      // ncclRedOp_t

  int (*CommInitAll)(ncclComm** comms, int num_ranks, const int* gpus) = nullptr;
  int (*CommDestroy)(ncclComm* comm) = nullptr;
  int (*CommAbort)(ncclComm* comm) = nullptr;
  int (*CommGetAsyncError)(ncclComm* comm, int* result) = nullptr;
  int (*AllReduce)(const void* from, void* to, size_t count, int type, int op, ncclComm* comm,
                   CUstream_st* stream) = nullptr;
  int (*Broadcast)(const void* from, void* to, size_t count, int type, int root, ncclComm* comm,
                   CUstream_st* stream) = nullptr;
  int (*GroupStart)() = nullptr;
  int (*GroupEnd)() = nullptr;
  const char* (*GetErrorString)(int result) = nullptr;

  /// The library stays loaded until the program ends.
  /// Errors: FAILED_PRECONDITION (CUDA_LIBRARY_MISSING).
  static absl::StatusOr<NcclLibrary> Load(const std::string& name);
};

}  // namespace videonsa
