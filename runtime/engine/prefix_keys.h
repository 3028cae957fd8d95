#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/base/hash.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Content keys of the full pages of a prompt, a chain that starts at `salt`, the secret that
/// stands for tenant and model (serving/tenant_salts.h): two prompts have equal key i only if every
/// row of pages 0..i is computed from the same tokens, positions, visual contents and attention
/// settings.
///
/// Returns nothing when pages must not be shared: semantics whose rows depend on later rows, or a
/// visual without a content key (keys stop before its page).
std::vector<Sha256Digest> PrefixKeys(const SequenceSpec& spec, absl::string_view salt);

/// The keys that follow `keys` when the prompt goes on with `rows`, tokens at the positions from
/// spec.next_position on: those that PrefixKeys gives such a prompt. Nothing if `keys` does not
/// reach the end of the prompt's full pages.
///
/// Requires: keys = PrefixKeys(spec, salt).
std::vector<Sha256Digest> MorePrefixKeys(const SequenceSpec& spec, absl::string_view salt,
                                         const std::vector<Sha256Digest>& keys,
                                         absl::Span<const int32_t> rows);

}  // namespace videonsa
