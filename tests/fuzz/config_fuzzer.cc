// Any bytes as config.json: refused with a reason, or a shape that the model code may divide by.
#include <cstddef>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/model/config.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa;
  const fuzz::MemoryFile file(data, size);
  const auto config = LoadModelConfigFile(file.path());
  if (!config.ok()) {
    VNSA_CHECK(GetErrorInfo(config.status()).has_value()) << config.status();
    return 0;
  }
  const TextConfig& text = config->text;
  VNSA_CHECK(text.num_layers > 0 && text.hidden_size > 0 && text.vocab_size > 0) << "text sizes";
  VNSA_CHECK(text.num_q_heads > 0 && text.num_kv_heads > 0 && text.head_dim > 0) << "heads";
  VNSA_CHECK_EQ(text.num_q_heads % text.num_kv_heads, 0);
  VNSA_CHECK(config->vision.num_heads > 0 && config->vision.hidden_size > 0) << "vision sizes";
  return 0;
}
