#include "runtime/engine/preemption.h"

#include <algorithm>

namespace videonsa {
namespace {

// What comes back when the chosen ones leave.
class Yield {
 public:
  Yield(int num_pages, absl::FunctionRef<int(int32_t)> holders)
      : leaving_(static_cast<size_t>(num_pages), 0), holders_(holders) {}

  void Add(const VictimView& victim) {
    for (const int32_t page : victim.pages) pages_ += ++leaving_[page] == holders_(page);
    hidden_bytes_ += victim.hidden_bytes;
    ++slots_;
  }
  void Remove(const VictimView& victim) {
    for (const int32_t page : victim.pages) pages_ -= leaving_[page]-- == holders_(page);
    hidden_bytes_ -= victim.hidden_bytes;
    --slots_;
  }
  bool Covers(const Shortage& shortage) const {
    return pages_ >= shortage.pages && hidden_bytes_ >= shortage.hidden_bytes &&
           slots_ >= shortage.slots;
  }

 private:
  std::vector<int> leaving_;  // of a page's holders, by page
  absl::FunctionRef<int(int32_t)> holders_;
  int pages_ = 0;
  int64_t hidden_bytes_ = 0;
  int slots_ = 0;
};

// Whether all of them could do, if they shared nothing: most calls end here.
bool MayCover(const std::vector<VictimView>& victims, const Shortage& shortage) {
  int64_t pages = 0, hidden_bytes = 0;
  for (const VictimView& victim : victims) {
    pages += static_cast<int64_t>(victim.pages.size());
    hidden_bytes += victim.hidden_bytes;
  }
  return pages >= shortage.pages && hidden_bytes >= shortage.hidden_bytes &&
         static_cast<int>(victims.size()) >= shortage.slots;
}

}  // namespace

std::vector<SequenceId> ChooseVictims(std::vector<VictimView> running, const Shortage& shortage,
                                      Priority priority, int num_pages,
                                      absl::FunctionRef<int(int32_t)> holders) {
  std::erase_if(running, [&](const VictimView& view) { return view.priority >= priority; });
  if (!MayCover(running, shortage)) return {};
  std::sort(running.begin(), running.end(), [](const VictimView& a, const VictimView& b) {
    if (a.priority != b.priority) return a.priority < b.priority;
    return a.lost_seconds != b.lost_seconds ? a.lost_seconds < b.lost_seconds : a.id < b.id;
  });
  Yield yield(num_pages, holders);
  size_t count = 0;
  while (count < running.size() && !yield.Covers(shortage)) yield.Add(running[count++]);
  if (!yield.Covers(shortage)) return {};
  std::vector<SequenceId> victims;
  for (size_t i = count; i-- > 0;) {
    yield.Remove(running[i]);
    if (yield.Covers(shortage)) continue;
    yield.Add(running[i]);
    victims.push_back(running[i].id);
  }
  return victims;
}

}  // namespace videonsa
