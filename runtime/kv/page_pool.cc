#include "runtime/kv/page_pool.h"

#include "runtime/base/check.h"

namespace videonsa {

PagePool::PagePool(int num_pages) {
  VNSA_CHECK_GE(num_pages, 0);
  refs_.assign(num_pages, 0);
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
  ++refs_[page];
}

void PagePool::Unref(int32_t page) {
  VNSA_CHECK(page >= 0 && page < capacity()) << "I2: page " << page;
  VNSA_CHECK_GT(refs_[page], 0) << "I2: page " << page << " freed twice";
  if (--refs_[page] == 0) free_.push_back(page);
}

int PagePool::refs(int32_t page) const {
  VNSA_CHECK(page >= 0 && page < capacity()) << "I2: page " << page;
  return refs_[page];
}

}  // namespace videonsa
