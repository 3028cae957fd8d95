#include "runtime/ops/backend.h"

#include "runtime/ops/half.h"

namespace videonsa {

std::vector<float> HostFloats(Backend& backend, const TensorView& x) {
  std::vector<char> bytes(static_cast<size_t>(x.num_elements()) * SizeOf(x.dtype));
  backend.Download(x, bytes.data());
  std::vector<float> values(static_cast<size_t>(x.num_elements()));
  LoadFloats(MatrixView(bytes.data(), x.dtype, x.rows(), x.cols()), 0, x.num_elements(),
             values.data());
  return values;
}

}  // namespace videonsa
