// Any bytes as config.json: refused with a reason, or a shape that the model code may divide by.
#include <stdlib.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/model/config.h"

namespace {

// A real file in memory: links out of their folder, as /proc/self/fd has, are refused unread.
const std::string& ConfigPath() {
  static const std::string* const path = [] {
    auto* const made = new std::string("/dev/shm/config_fuzzer_XXXXXX");
    const int fd = mkstemp(made->data());
    VNSA_CHECK(fd >= 0) << *made;
    close(fd);
    atexit([] { unlink(ConfigPath().c_str()); });
    return made;
  }();
  return *path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa;
  std::ofstream(ConfigPath(), std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  const auto config = LoadModelConfigFile(ConfigPath());
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
