#pragma once

#include <cstdint>

#include "runtime/base/check.h"

namespace videonsa {

/// What a sequence can ever hold at once, known before it starts.
struct KvNeed {
  int pages = 0;             ///< prompt and answer
  int64_t hidden_bytes = 0;  ///< layer-wise prefill only: rows kept between steps
};

/// Pages that `tokens` tokens fill at `page_tokens` a page.
inline int64_t PagesFor(int64_t tokens, int page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

/// A fixed number of bytes that sequences reserve and give back.
///
/// Owner: engine thread only. Invariants: I3 0 <= used <= limit.
class ByteBudget {
 public:
  explicit ByteBudget(int64_t limit) : limit_(limit) { VNSA_CHECK_GE(limit, 0); }

  /// Reserves `bytes` if they fit.
  bool TryReserve(int64_t bytes) {
    VNSA_CHECK_GE(bytes, 0) << "I3";
    if (bytes > limit_ - used_) return false;
    used_ += bytes;
    return true;
  }
  void Release(int64_t bytes) {
    used_ -= bytes;
    VNSA_CHECK_GE(used_, 0) << "I3: more bytes given back than taken";
  }

  int64_t limit() const { return limit_; }
  int64_t used() const { return used_; }

 private:
  const int64_t limit_;
  int64_t used_ = 0;
};

}  // namespace videonsa
