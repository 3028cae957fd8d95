#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <optional>

#include "absl/time/time.h"

namespace videonsa {

/// Wire form of a duration, to the nanosecond; infinite ones become the largest the wire allows.
google::protobuf::Duration ToProto(absl::Duration duration);

/// Wire form of a wall-clock time.
google::protobuf::Timestamp ToProto(absl::Time time);

/// Nothing if the wire form breaks its rules (signs differ, nanoseconds or seconds out of range).
std::optional<absl::Duration> FromProto(const google::protobuf::Duration& duration);

absl::Time FromProto(const google::protobuf::Timestamp& time);

}  // namespace videonsa
