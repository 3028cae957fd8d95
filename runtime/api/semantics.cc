#include "runtime/api/generate_request.h"
#include "runtime/base/check.h"

namespace videonsa {

const char* SemanticsName(AttentionSemantics semantics) {
  switch (semantics) {
    case AttentionSemantics::kDense:
      return "dense";
    case AttentionSemantics::kCausalNsa:
      return "causal_nsa";
    case AttentionSemantics::kReleasedNsa:
      return "released_nsa";
    case AttentionSemantics::kTriShape:
      return "tri_shape";
    case AttentionSemantics::kMInference:
      return "minference";
    case AttentionSemantics::kFlexPrefill:
      return "flexprefill";
    case AttentionSemantics::kXAttention:
      return "xattention";
  }
  VNSA_CHECK(false) << "semantics " << static_cast<int>(semantics);
  return "";
}

bool IsNativeSparse(AttentionSemantics semantics) {
  return semantics == AttentionSemantics::kCausalNsa ||
         semantics == AttentionSemantics::kReleasedNsa;
}

bool IsTrainingFree(AttentionSemantics semantics) {
  return semantics != AttentionSemantics::kDense && !IsNativeSparse(semantics);
}

bool NeedsWholePrompt(AttentionSemantics semantics) {
  return semantics != AttentionSemantics::kDense && semantics != AttentionSemantics::kCausalNsa;
}

}  // namespace videonsa
