#include "runtime/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace videonsa::internal {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  stream_ << "check failed: " << condition << " at " << file << ":" << line << " ";
}

CheckFailure::~CheckFailure() {
  stream_ << "\n";
  const std::string text = stream_.str();
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
  std::abort();
}

}  // namespace videonsa::internal
