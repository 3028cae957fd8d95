#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/text/tokenizer_definition.h"

namespace videonsa {

/// Reads a tokenizer.json (byte-level BPE with optional NFC, Split and ByteLevel steps).
///
/// Errors: FAILED_PRECONDITION (MODEL_INVALID) for malformed JSON, and for every field that would
///         change the ids and is not implemented, by name.
/// Numerics: memory is bounded by a small multiple of the text.
absl::StatusOr<TokenizerDefinition> ParseTokenizerJson(absl::string_view text);

}  // namespace videonsa
