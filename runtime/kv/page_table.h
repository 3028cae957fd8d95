#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/kv/page_pool.h"

namespace videonsa {

/// Ordered pages of one sequence; holds one reference to each and gives them back when destroyed.
///
/// The first `num_shared` pages belong to earlier requests too and are never written.
///
/// Owner: engine thread only. Lifetime: the pool outlives the table.
class PageTable {
 public:
  PageTable() = default;
  /// Takes over one reference to every page of `pages`.
  PageTable(PagePool* pool, std::vector<int32_t> pages, int num_shared)
      : pool_(pool), pages_(std::move(pages)), num_shared_(num_shared) {}
  PageTable(PageTable&& other) noexcept { *this = std::move(other); }
  PageTable& operator=(PageTable&& other) noexcept {
    Clear();
    pool_ = other.pool_;
    pages_ = std::exchange(other.pages_, {});
    num_shared_ = std::exchange(other.num_shared_, 0);
    return *this;
  }
  ~PageTable() { Clear(); }

  /// Gives all pages back.
  void Clear() {
    for (const int32_t page : pages_) pool_->Unref(page);
    pages_.clear();
    num_shared_ = 0;
  }

  const std::vector<int32_t>& pages() const { return pages_; }
  int size() const { return static_cast<int>(pages_.size()); }
  int num_shared() const { return num_shared_; }

 private:
  PagePool* pool_ = nullptr;
  std::vector<int32_t> pages_;
  int num_shared_ = 0;
};

}  // namespace videonsa
