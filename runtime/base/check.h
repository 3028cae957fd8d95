#pragma once

#include <sstream>
#include <string>

namespace videonsa::internal {

/// Collects the message of a failed check; prints it and aborts when destroyed.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

}  // namespace videonsa::internal

/// Guards against our own bugs: always on, prints file, line, condition and the streamed context
/// to stderr and aborts. Bad input from outside is a Status, never a check.
#define VNSA_CHECK(condition)                              \
  if (__builtin_expect(static_cast<bool>(condition), 1)) { \
  } else /* NOLINT */                                      \
    ::videonsa::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()

#define VNSA_CHECK_OP_(a, op, b) VNSA_CHECK((a)op(b)) << "(" << (a) << " vs " << (b) << ") "
#define VNSA_CHECK_EQ(a, b) VNSA_CHECK_OP_(a, ==, b)
#define VNSA_CHECK_NE(a, b) VNSA_CHECK_OP_(a, !=, b)
#define VNSA_CHECK_LE(a, b) VNSA_CHECK_OP_(a, <=, b)
#define VNSA_CHECK_LT(a, b) VNSA_CHECK_OP_(a, <, b)
#define VNSA_CHECK_GE(a, b) VNSA_CHECK_OP_(a, >=, b)
#define VNSA_CHECK_GT(a, b) VNSA_CHECK_OP_(a, >, b)

/// As VNSA_CHECK, for per-element loops: compiled out of release builds.
#ifdef NDEBUG
#define VNSA_DCHECK(condition) VNSA_CHECK(true || (condition))
#else
#define VNSA_DCHECK(condition) VNSA_CHECK(condition)
#endif
