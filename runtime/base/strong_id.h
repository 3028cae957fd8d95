#pragma once

#include <cstdint>
#include <functional>
#include <ostream>

namespace videonsa {

/// An integer that cannot be mixed up with another kind of id.
///
/// Example: `struct SequenceTag; using SequenceId = StrongId<SequenceTag>;`
template <typename Tag>
struct StrongId {
  uint64_t value = 0;

  friend bool operator==(StrongId a, StrongId b) { return a.value == b.value; }
  friend bool operator<(StrongId a, StrongId b) { return a.value < b.value; }
  friend std::ostream& operator<<(std::ostream& out, StrongId id) { return out << id.value; }
  template <typename H>
  friend H AbslHashValue(H state, StrongId id) {
    return H::combine(std::move(state), id.value);
  }
};

}  // namespace videonsa
