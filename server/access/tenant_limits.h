#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// What a tenant may use. 0 means no limit, but for the clip store's three.
struct TenantLimits {
  int64_t requests_per_minute = 0;       ///< calls of any kind
  int64_t questions = 0;                 ///< that run or wait at once
  int64_t calls = 0;                     ///< open at once, of any kind
  int64_t prompt_tokens_per_minute = 0;  ///< computed, that is without cached ones
  int64_t output_tokens_per_minute = 0;
  int64_t clip_bytes = int64_t{20} << 30;
  int64_t clips = 1000;
  int64_t uploads = 4;  ///< unfinished

  bool operator==(const TenantLimits&) const = default;
};

/// Limits that the access file sets for one tenant.
struct TenantOverrides {
  std::optional<int64_t> requests_per_minute, questions, calls, prompt_tokens_per_minute,
      output_tokens_per_minute, clip_bytes, clips, uploads;

  /// `defaults` with what is set here.
  TenantLimits Over(TenantLimits defaults) const;
  /// Sets the limit named `name` as in the access file.
  /// Errors: INVALID_ARGUMENT: no such limit, or no number in its range.
  absl::Status Set(absl::string_view name, absl::string_view value);
};

}  // namespace videonsa
