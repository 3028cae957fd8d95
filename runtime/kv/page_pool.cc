#include "runtime/kv/page_pool.h"

#include "runtime/base/check.h"

namespace videonsa {

PagePool::PagePool(int num_pages) {
  VNSA_CHECK_GE(num_pages, 0);
  refs_.assign(num_pages, 0);
  indexed_.assign(num_pages, 0);
  free_.reserve(num_pages);
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

std::optional<std::vector<int32_t>> PagePool::TryAllocate(int count) {
  VNSA_CHECK_GE(count, 0);
  if (count > num_free()) return std::nullopt;
  std::vector<int32_t> pages;
  pages.reserve(count);
  for (int i = 0; i < count; ++i) {
    const int32_t page = free_.back();
    free_.pop_back();
    VNSA_CHECK_EQ(refs_[page], 0) << "I2: free page " << page << " has references";
    refs_[page] = 1;
    pages.push_back(page);
  }
  return pages;
}

void PagePool::Ref(int32_t page) {
  VNSA_CHECK(page >= 0 && page < capacity()) << "I2: page " << page;
  VNSA_CHECK_GT(refs_[page], 0) << "I2: reference to free page " << page;
  if (++refs_[page] == 2 && indexed_[page]) --num_only_indexed_;
}

void PagePool::Unref(int32_t page) {
  VNSA_CHECK(page >= 0 && page < capacity()) << "I2: page " << page;
  VNSA_CHECK_GT(refs_[page], 0) << "I2: page " << page << " freed twice";
  if (--refs_[page] == 0) {
    VNSA_CHECK(!indexed_[page]) << "I2: page " << page << " freed under the prefix index";
    free_.push_back(page);
  } else if (refs_[page] == 1 && indexed_[page]) {
    ++num_only_indexed_;
  }
}

void PagePool::SetIndexed(int32_t page, bool indexed) {
  VNSA_CHECK_GT(refs(page), 0) << "I2: page " << page << " is free";
  VNSA_CHECK_NE(static_cast<bool>(indexed_[page]), indexed) << "I2: page " << page;
  indexed_[page] = indexed;
  if (refs_[page] == 1) num_only_indexed_ += indexed ? 1 : -1;
}

int PagePool::refs(int32_t page) const {
  VNSA_CHECK(page >= 0 && page < capacity()) << "I2: page " << page;
  return refs_[page];
}

}  // namespace videonsa
