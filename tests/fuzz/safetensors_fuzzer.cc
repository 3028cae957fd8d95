// Any bytes as a safetensors file: refused with a reason, or every tensor lies within the file.
#include <cstddef>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto header = SafetensorsHeader::Parse("fuzz.safetensors", bytes);
  if (!header.ok()) {
    VNSA_CHECK(GetErrorInfo(header.status()).has_value()) << header.status();
    return 0;
  }
  VNSA_CHECK(header->data_offset >= 8 && header->data_offset <= static_cast<int64_t>(size))
      << header->data_offset;
  const int64_t data_bytes = static_cast<int64_t>(size) - header->data_offset;
  for (const auto& [name, tensor] : header->tensors) {
    VNSA_CHECK(tensor.begin >= 0 && tensor.begin <= tensor.end && tensor.end <= data_bytes) << name;
    VNSA_CHECK(tensor.num_elements() >= 0) << name;
    if (tensor.dtype) {
      VNSA_CHECK(tensor.num_elements() * static_cast<int64_t>(SizeOf(*tensor.dtype)) ==
                 tensor.end - tensor.begin)
          << name;
    }
  }
  return 0;
}
