#include "runtime/engine/scheduler.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

/// Room left for prefill and vision slices while a plan is being filled.
struct Room {
  double seconds = 0;
  int tokens = 0;
  bool first = true;  ///< nothing was planned yet: one unit is due whatever it costs
};

double PrefillCost(const SequenceView& view, int token_end, int layers, const CostModel& cost) {
  const double share = static_cast<double>(layers) / view.num_layers;
  const double pairs =
      view.forecast == nullptr ? 0 : view.forecast->Between(view.next_token, token_end);
  return cost.PrefillSeconds((token_end - view.next_token) * share, pairs * share, share);
}

// Largest end of a token slice that fits, a page border or the prompt's end; next_token if none.
int TokenSliceEnd(const SequenceView& view, const Room& room, const CostModel& cost) {
  const int first = std::min((view.next_token / kPageTokens + 1) * kPageTokens, view.prompt_tokens);
  const auto fits = [&](int end) {
    return end - view.next_token <= room.tokens &&
           PrefillCost(view, end, view.num_layers, cost) <= room.seconds;
  };
  if (!fits(first)) return room.first ? first : view.next_token;
  int low = first;  // fits; costs grow with the end, so halve between it and the prompt's end
  if (fits(view.prompt_tokens)) return view.prompt_tokens;
  int high = (view.prompt_tokens + kPageTokens - 1) / kPageTokens;
  int page = (low + kPageTokens - 1) / kPageTokens;
  while (high - page > 1) {
    const int middle = (page + high) / 2;
    if (fits(middle * kPageTokens)) {
      page = middle;
    } else {
      high = middle;
    }
  }
  return std::max(low, page * kPageTokens);
}

class StepFiller {
 public:
  StepFiller(const StepBudget& budget, const CostModel& cost) : budget_(budget), cost_(cost) {}

  void AddDecodes(absl::Span<const SequenceView> running) {
    for (const SequenceView& view : running) {
      if (!view.decode) continue;
      step_.plan.decode.push_back(view.id);
      step_.work.decode_rows += 1;
      step_.work.decode_kv_tokens += view.kv_tokens;
    }
    const double decode = cost_.DecodeSeconds(step_.work.decode_rows, step_.work.decode_kv_tokens);
    room_.seconds = std::max(budget_.seconds - decode, budget_.min_prefill_to_decode * decode);
    room_.tokens = budget_.prefill_tokens;
  }

  bool full() const { return !room_.first && (room_.seconds <= 0 || room_.tokens <= 0); }

  void AddPrefill(const SequenceView& view) {
    if (view.replay_begin < view.replay_end) return AddReplay(view);
    if (!AddVision(view)) return;
    if (view.layerwise) {
      AddLayers(view);
    } else {
      AddTokens(view);
    }
  }

  void NoteLeftOut() { step_.full = true; }

  PlannedStep Take() {
    step_.seconds = cost_.StepSeconds(step_.work);
    return std::move(step_);
  }

 private:
  void Charge(const SequenceView& view, double seconds) {
    room_.seconds -= seconds;
    room_.first = false;
    step_.charges.emplace_back(view.id, seconds);
  }

  // At most `most` units, the first of which takes `one` seconds and each other `more`.
  int CountThatFits(double one, double more, int most) const {
    if (one > room_.seconds) return 0;
    if (more <= 0) return most;
    return static_cast<int>(std::min<double>(most, 1 + (room_.seconds - one) / more));
  }

  // Returns whether all visuals of the sequence are encoded once the plan has run.
  bool AddVision(const SequenceView& view) {
    for (const SequenceView::VisualView& visual : view.visuals) {
      const int left = visual.t_end - visual.t_begin;
      const int ready = std::min(visual.t_ready, visual.t_end) - visual.t_begin;
      if (ready <= 0) return false;
      const double patches = static_cast<double>(visual.patches_per_t);
      const double one = cost_.VisionSeconds(patches);
      const double more = cost_.VisionSeconds(2 * patches) - one;
      int count = CountThatFits(one, more, ready);
      if (room_.first) count = std::max(count, 1);
      if (count < ready) step_.full = true;
      if (count <= 0) return false;
      step_.plan.vision.push_back(
          {view.id, visual.visual_idx, visual.t_begin, visual.t_begin + count});
      step_.work.vision_slices += 1;
      step_.work.vision_patches += patches * count;
      Charge(view, cost_.VisionSeconds(patches * count));
      if (count < left) return false;
    }
    return true;
  }

  void AddTokens(const SequenceView& view) {
    const int end = TokenSliceEnd(view, room_, cost_);
    if (end < view.prompt_tokens) step_.full = true;
    if (end <= view.next_token) return;
    const double seconds = PrefillCost(view, end, view.num_layers, cost_);
    step_.plan.prefill.push_back({view.id, view.next_token, end, 0, view.num_layers});
    step_.work.prefill_slices += 1;
    step_.work.prefill_tokens += end - view.next_token;
    step_.work.prefill_pairs += view.forecast ? view.forecast->Between(view.next_token, end) : 0;
    room_.tokens -= end - view.next_token;
    Charge(view, seconds);
  }

  // What `count` more answer rows of `view` add to the step.
  double ReplayCost(const SequenceView& view, int count) const {
    const StepWork& work = step_.work;
    return cost_.DecodeSeconds(
               work.decode_rows + count,
               work.decode_kv_tokens + static_cast<double>(view.kv_tokens) * count) -
           cost_.DecodeSeconds(work.decode_rows, work.decode_kv_tokens);
  }

  void AddReplay(const SequenceView& view) {
    const int left = view.replay_end - view.replay_begin;
    const double one = ReplayCost(view, 1), more = ReplayCost(view, 2) - one;
    int count = CountThatFits(one, more, std::min(left, room_.tokens));
    if (room_.first) count = std::max(count, 1);
    if (count < left) step_.full = true;
    if (count <= 0) return;
    const double seconds = ReplayCost(view, count);
    step_.plan.replay.push_back({view.id, view.replay_begin, view.replay_begin + count});
    step_.work.decode_rows += count;
    step_.work.decode_kv_tokens += static_cast<double>(view.kv_tokens) * count;
    room_.tokens -= count;
    Charge(view, seconds);
  }

  void AddLayers(const SequenceView& view) {
    const int left = view.num_layers - view.next_layer;
    const double unit = PrefillCost(view, view.prompt_tokens, 1, cost_);
    int count = unit > 0 ? static_cast<int>(std::min<double>(left, room_.seconds / unit)) : left;
    if (room_.first) count = std::max(count, 1);
    if (count < left) step_.full = true;
    if (count <= 0) return;
    const double share = static_cast<double>(count) / view.num_layers;
    step_.plan.prefill.push_back(
        {view.id, 0, view.prompt_tokens, view.next_layer, view.next_layer + count});
    step_.work.prefill_slices += share;
    step_.work.prefill_tokens += view.prompt_tokens * share;
    step_.work.prefill_pairs += view.forecast ? view.forecast->pairs.total() * share : 0;
    Charge(view, unit * count);
  }

  const StepBudget& budget_;
  const CostModel& cost_;
  Room room_;
  PlannedStep step_;
};

}  // namespace

PlannedStep PlanStep(absl::Span<const SequenceView> running, const StepBudget& budget,
                     const CostModel& cost) {
  StepFiller filler(budget, cost);
  filler.AddDecodes(running);
  std::vector<const SequenceView*> prefills;
  for (const SequenceView& view : running) {
    if (!view.decode) prefills.push_back(&view);
  }
  std::sort(prefills.begin(), prefills.end(), [&](const SequenceView* a, const SequenceView* b) {
    const double x = budget.by_service ? a->service : a->rank;
    const double y = budget.by_service ? b->service : b->rank;
    return x != y ? x < y : a->id < b->id;
  });
  for (const SequenceView* view : prefills) {
    if (filler.full()) {
      filler.NoteLeftOut();
      break;
    }
    filler.AddPrefill(*view);
  }
  return filler.Take();
}

}  // namespace videonsa
