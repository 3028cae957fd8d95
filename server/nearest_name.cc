#include "server/nearest_name.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace videonsa {
namespace {

constexpr size_t kMaxWord = 64;  // longer ones are like no name

// Insertions, deletions and changes of one character that lead from `a` to `b`.
size_t Edits(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string DidYouMean(absl::string_view word, const std::vector<std::string>& known) {
  if (word.size() > kMaxWord) return "";
  const std::string* best = nullptr;
  size_t fewest = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& name : known) {
    const size_t edits = Edits(word, name);
    if (edits >= fewest) continue;
    fewest = edits;
    best = &name;
  }
  return best == nullptr ? "" : absl::StrCat("; did you mean ", *best, "?");
}

}  // namespace videonsa
