#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/base/hash.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Content keys of the full pages of a prompt, a chain that starts at `salt` (tenant and model):
/// two prompts have equal key i only if every row of pages 0..i is computed from the same tokens,
/// positions, visual contents and attention settings.
///
/// Returns nothing when pages must not be shared: semantics whose rows depend on later rows, or a
/// visual without a content key (keys stop before its page).
std::vector<Sha256Digest> PrefixKeys(const SequenceSpec& spec, absl::string_view salt);

}  // namespace videonsa
