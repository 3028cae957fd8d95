#include "server/proto_time.h"

#include <algorithm>

namespace videonsa {
namespace {
// Limits of google.protobuf.Duration: about 10 000 years.
constexpr int64_t kMaxSeconds = 315'576'000'000;
constexpr int32_t kMaxNanos = 999'999'999;
}  // namespace

google::protobuf::Duration ToProto(absl::Duration duration) {
  duration = std::clamp(duration, absl::Seconds(-kMaxSeconds), absl::Seconds(kMaxSeconds));
  google::protobuf::Duration out;
  absl::Duration rest;
  out.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  out.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return out;
}

google::protobuf::Timestamp ToProto(absl::Time time) {
  const int64_t seconds = absl::ToUnixSeconds(time);  // floor, so that nanos are not negative
  google::protobuf::Timestamp out;
  out.set_seconds(seconds);
  out.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return out;
}

std::optional<absl::Duration> FromProto(const google::protobuf::Duration& duration) {
  if (duration.seconds() > kMaxSeconds || duration.seconds() < -kMaxSeconds ||
      duration.nanos() > kMaxNanos || duration.nanos() < -kMaxNanos) {
    return std::nullopt;
  }
  if ((duration.seconds() < 0 && duration.nanos() > 0) ||
      (duration.seconds() > 0 && duration.nanos() < 0)) {
    return std::nullopt;
  }
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

}  // namespace videonsa
