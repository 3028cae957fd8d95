#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// The ids of a call in the terms of W3C Trace Context.
///
/// Source: https://www.w3.org/TR/trace-context/ sections 3.2 (traceparent) and 3.3 (tracestate).
struct TraceContext {
  std::string trace_id;   ///< 32 hexadecimal digits; the caller's if it sent a well-formed one
  std::string span_id;    ///< 16 hexadecimal digits, of this call
  std::string parent_id;  ///< of the caller's span; empty if it sent none
  bool sampled = true;    ///< as the caller wants; true without a word from it

  /// "00-TRACE-SPAN-01", for the reply.
  std::string Header() const;
};

/// The context of a call whose metadata held `traceparent`; empty or malformed: a new trace.
TraceContext MakeTraceContext(absl::string_view traceparent);

}  // namespace videonsa
