#include "runtime/ops/cublas_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
// Errors of cuBLASLt on the device's record, apart from those of the runtime.
constexpr int kCublasErrors = 100000;

// Largest power of two up to 256 that divides the address.
uint32_t AlignmentOf(const void* data) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

cudaDataType_t TypeOf(DType type) { return type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

}  // namespace

// The functions in use, by their own names.
struct CublasLt::Library {
  decltype(&cublasLtCreate) Create = nullptr;
  decltype(&cublasLtDestroy) Destroy = nullptr;
  decltype(&cublasLtMatmul) Matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) MatmulDescCreate = nullptr;
  decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic = nullptr;

  // False if a function is missing. The library stays loaded until the program ends.
  bool Load() {
    void* library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return false;
    bool complete = true;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      complete &= function != nullptr;
    };
    find(Create, "cublasLtCreate");
    find(Destroy, "cublasLtDestroy");
    find(Matmul, "cublasLtMatmul");
    find(MatmulDescCreate, "cublasLtMatmulDescCreate");
    find(MatmulDescDestroy, "cublasLtMatmulDescDestroy");
    find(MatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute");
    find(MatrixLayoutCreate, "cublasLtMatrixLayoutCreate");
    find(MatrixLayoutDestroy, "cublasLtMatrixLayoutDestroy");
    find(MatmulPreferenceCreate, "cublasLtMatmulPreferenceCreate");
    find(MatmulPreferenceDestroy, "cublasLtMatmulPreferenceDestroy");
    find(MatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute");
    find(MatmulAlgoGetHeuristic, "cublasLtMatmulAlgoGetHeuristic");
    return complete;
  }
};

// Row-major matrices are column-major ones transposed: out^T [n, rows] = w [n, k] x^T [k, rows].
struct CublasLt::Plan {
  explicit Plan(const Library& library) : library(library) {}
  ~Plan() {
    if (w != nullptr) library.MatrixLayoutDestroy(w);
    if (x != nullptr) library.MatrixLayoutDestroy(x);
    if (out != nullptr) library.MatrixLayoutDestroy(out);
    if (product != nullptr) library.MatmulDescDestroy(product);
  }

  const Library& library;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm;
};

CublasLt::CublasLt(CudaDevice& device) : device_(device) {}

CublasLt::~CublasLt() {
  plans_.clear();
  if (handle_ != nullptr) library_->Destroy(static_cast<cublasLtHandle_t>(handle_));
}

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Create(CudaDevice& device) {
  std::unique_ptr<CublasLt> lt(new CublasLt(device));
  lt->library_ = std::make_unique<Library>();
  if (!lt->library_->Load()) {
    const char* error = dlerror();
    return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_LIBRARY_MISSING",
                     absl::StrCat("libcublasLt.so.13 cannot be loaded: ",
                                  error == nullptr ? "a function is missing" : error));
  }
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = lt->library_->Create(&handle);
      status != CUBLAS_STATUS_SUCCESS) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_LIBRARY_MISSING",
                     absl::StrCat("cuBLASLt cannot be started, status ", status));
  }
  lt->handle_ = handle;
  VNSA_ASSIGN_OR_RETURN(lt->workspace_, device.Allocate(kWorkspaceBytes, "GEMM workspace"));
  return lt;
}

// Returns 0 or the status of what failed.
int CublasLt::ChooseAlgorithm(const MatMulArgs& args, Plan& plan) {
  const Library& lt = *library_;
  int failed = 0;
  const auto check = [&](cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS && failed == 0) failed = status;
  };
  cublasLtMatmulPreference_t preference = nullptr;
  const uint64_t workspace = kWorkspaceBytes;
  check(lt.MatmulPreferenceCreate(&preference));
  check(lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                        &workspace, sizeof(workspace)));
  const std::pair<cublasLtMatmulPreferenceAttributes_t, uint32_t> alignments[] = {
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(args.w)},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(args.x)},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(args.out)},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(args.out)}};
  for (const auto& [attribute, bytes] : alignments) {
    check(lt.MatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof(bytes)));
  }
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  if (failed == 0) {
    check(lt.MatmulAlgoGetHeuristic(static_cast<cublasLtHandle_t>(handle_), plan.product, plan.w,
                                    plan.x, plan.out, plan.out, preference, 1, &found, &count));
    if (count == 0) check(CUBLAS_STATUS_NOT_SUPPORTED);
  }
  if (preference != nullptr) lt.MatmulPreferenceDestroy(preference);
  plan.algorithm = found.algo;
  return failed;
}

CublasLt::Plan* CublasLt::FindPlan(const MatMulArgs& args) {
  const uint32_t x_alignment = AlignmentOf(args.x), out_alignment = AlignmentOf(args.out);
  const Key key{args.rows,
                args.n,
                args.k,
                args.x_stride,
                args.w_stride,
                args.out_stride,
                x_alignment,
                out_alignment,
                args.in_type,
                args.out_type,
                args.bias != nullptr,
                args.accumulate};
  std::unique_ptr<Plan>& plan = plans_[key];
  if (plan != nullptr) return plan.get();
  const Library& lt = *library_;
  plan = std::make_unique<Plan>(lt);
  int failed = 0;
  const auto check = [&](cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS && failed == 0) failed = status;
  };
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(lt.MatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  check(lt.MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                  sizeof(transposed)));
  if (args.bias != nullptr) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_type = TypeOf(args.out_type);
    check(lt.MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                    sizeof(epilogue)));
    check(lt.MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                    sizeof(bias_type)));
    check(lt.MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args.bias,
                                    sizeof(args.bias)));
  }
  const uint64_t n = static_cast<uint64_t>(args.n), k = static_cast<uint64_t>(args.k);
  const uint64_t rows = static_cast<uint64_t>(args.rows);
  check(lt.MatrixLayoutCreate(&plan->w, TypeOf(args.in_type), k, n, args.w_stride));
  check(lt.MatrixLayoutCreate(&plan->x, TypeOf(args.in_type), k, rows, args.x_stride));
  check(lt.MatrixLayoutCreate(&plan->out, TypeOf(args.out_type), n, rows, args.out_stride));
  if (failed == 0) failed = ChooseAlgorithm(args, *plan);
  if (failed != 0) {
    device_.Note(kCublasErrors + failed, "planning a matrix product");
    return nullptr;
  }
  return plan.get();
}

void CublasLt::MatMul(const MatMulArgs& args) {
  if (args.rows == 0 || !device_.status().ok()) return;
  Plan* plan = FindPlan(args);
  if (plan == nullptr) return;
  if (args.bias != nullptr) {
    library_->MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args.bias,
                                     sizeof(args.bias));
  }
  const float one = 1, beta = args.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status = library_->Matmul(
      static_cast<cublasLtHandle_t>(handle_), plan->product, &one, args.w, plan->w, args.x, plan->x,
      &beta, args.out, plan->out, args.out, plan->out, &plan->algorithm, workspace_.data(),
      static_cast<size_t>(kWorkspaceBytes), device_.stream());
  if (status != CUBLAS_STATUS_SUCCESS) device_.Note(kCublasErrors + status, "a matrix product");
}

}  // namespace videonsa
