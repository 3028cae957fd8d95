#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace videonsa::client {

/// Answer parsers of the published evaluation, quirks included: a score is comparable only if the
/// same replies count. All are pure and take replies as CleanReply leaves them.
/// Source: eval-tasks of the reference (lmms-eval task files); pinned by tests/data/eval.

/// What counts of a raw reply: the inside of <answer>…</answer> or \boxed{…} if there is one,
/// without blanks at the ends.
std::string CleanReply(absl::string_view reply);

/// The letter 'A'..'E' in upper case, or empty: "X. text" at the start, else the first letter a-e
/// that stands alone once punctuation has gone (so the article "a" reads as A).
std::string ExtractMvbench(absl::string_view reply);

/// The first capital A..D after set phrases have been cut; of eight phrases four are glued into two
/// that never match, so "Best option: (C)" gives B.
std::string ExtractVideomme(absl::string_view reply);

/// The first capital A..E after all eight set phrases have been cut; empty where the reference
/// takes a random letter.
std::string ExtractLongvideobench(absl::string_view reply);

/// The character before the first ')', else the whole reply.
std::string ExtractMlvu(absl::string_view reply);

/// The first capital letter of `last` options that stands alone; else the whole reply without a
/// full stop at the end.
std::string ExtractGeneric(absl::string_view reply, int num_options);

}  // namespace videonsa::client
