#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace videonsa {

/// Free list and reference counts of KV pages: metadata only, the bytes belong to the executor.
///
/// A page is free or has at least one reference; a page with several references is read only.
///
/// Owner: engine thread only.
/// Invariants: I1 free + used = capacity; I2 no count below zero, no page twice in the free list.
class PagePool {
 public:
  /// Requires: num_pages >= 0.
  explicit PagePool(int num_pages);

  /// Takes `count` pages with one reference each, or none at all if fewer are free.
  std::optional<std::vector<int32_t>> TryAllocate(int count);
  /// Adds a reference to a used page.
  void Ref(int32_t page);
  /// Drops a reference; the last one frees the page.
  void Unref(int32_t page);

  /// Notes whether one of the page's references is the prefix index's. Requires: the page is used,
  /// and was not noted so already.
  void SetIndexed(int32_t page, bool indexed);
  /// Pages whose only reference is the prefix index's.
  int num_only_indexed() const { return num_only_indexed_; }

  int refs(int32_t page) const;
  /// Whether one of the page's references is the prefix index's.
  bool indexed(int32_t page) const { return indexed_[page] != 0; }
  int capacity() const { return static_cast<int>(refs_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_used() const { return capacity() - num_free(); }

 private:
  std::vector<int32_t> refs_;     // by page; 0 = free
  std::vector<uint8_t> indexed_;  // by page
  int num_only_indexed_ = 0;
  std::vector<int32_t> free_;  // last in, first out: recently used pages are warm
};

}  // namespace videonsa
