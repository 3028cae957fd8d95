#include "runtime/engine/warm_up.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/base/status_macros.h"
#include "runtime/engine/attention_pairs.h"

namespace videonsa {
namespace {

constexpr int kShortPrompts = 16;
constexpr int kShortTokens = 16;
constexpr int kMostOutputs = kPageTokens / 4;  // of a short prompt: one page is enough
constexpr int kGridSide = 16;                  // patches; 64 tokens a temporal patch
constexpr int kTextBeside = 24;                // tokens before and behind a clip
constexpr int kLongest[] = {8192, 4096, 2048, 1024, 512, 256};
constexpr double kClipShare = 0.4;      // of the time, for the clip
constexpr double kLongShare = 0.8;      // of what is left, for the long prompt
constexpr double kPatchToToken = 0.25;  // a guess, before the first frame
constexpr SamplingSettings kGreedy = {.suppress_eos = true};

/// A sequence that the executor knows.
struct Prompt {
  SequenceId id;
  int length = 0;
  int frames = 0;
  bool layerwise = false;
  bool prefilled = false;
  int outputs = 0;
  PairForecast forecast;
};

/// What of a step is measured.
enum class Phase { kVision, kPrefill, kDecode };

/// A step of one phase. The first of a kind takes longer: memory is touched,
/// kernels are made.
struct Timed {
  Phase phase = Phase::kPrefill;
  bool first = false;
  CostSample sample;
};

class WarmUp {
 public:
  WarmUp(Executor& executor, const WarmUpOptions& options)
      : executor_(executor), info_(executor.info()), options_(options), cost_(info_) {}

  absl::StatusOr<std::vector<CostSample>> Measure() {
    VNSA_RETURN_IF_ERROR(MeasureOne());
    VNSA_RETURN_IF_ERROR(MeasureClip());
    VNSA_RETURN_IF_ERROR(MeasureBatch());
    VNSA_RETURN_IF_ERROR(MeasureLong());
    for (const SequenceId id : known_) executor_.ReleaseSequence(id);
    return Samples();
  }

 private:
  double left() const { return options_.seconds - spent_; }

  SequenceSpec MakeSpec(int text_before, int frames, int text_after) {
    const PatchGrid grid{frames, kGridSide, kGridSide};
    SequenceSpec spec;
    spec.id = SequenceId{next_id_++};
    std::vector<int32_t> axes[3];
    int at = 0;
    const auto text = [&](int tokens) {
      for (int i = 0; i < tokens; ++i, ++at) {
        spec.token_ids.push_back(static_cast<int32_t>(spec.token_ids.size() % kPageTokens) %
                                 std::max(info_.vocab_size, 1));
        for (std::vector<int32_t>& axis : axes) axis.push_back(at);
      }
    };
    text(text_before);
    if (frames > 0) {
      spec.vision_spans.push_back({text_before, static_cast<int>(grid.num_tokens()), 0});
      constexpr int kSide = kGridSide / 2;
      for (int i = 0; i < grid.num_tokens(); ++i) {
        spec.token_ids.push_back(options_.vision_token_id);
        axes[0].push_back(at + i / (kSide * kSide));
        axes[1].push_back(at + i / kSide % kSide);
        axes[2].push_back(at + i % kSide);
      }
      at += std::max(frames, kSide);
      auto patches = std::make_shared<PatchBatch>();
      patches->grid = grid;
      patches->rows.resize(static_cast<size_t>(grid.num_patches()) * kPatchDim);
      for (size_t i = 0; i < patches->rows.size(); ++i) {
        patches->rows[i] = static_cast<float>(i % 17) / 8.0f - 1.0f;
      }
      spec.visuals.push_back(WholePatches(std::move(patches)));
    }
    text(text_after);
    for (const std::vector<int32_t>& axis : axes) {
      spec.positions.insert(spec.positions.end(), axis.begin(), axis.end());
    }
    spec.next_position = at;
    spec.sampling = kGreedy;
    spec.sampling.max_output_tokens = kMostOutputs;
    spec.attention.semantics = info_.semantics;
    spec.attention.selected_blocks = info_.selected_blocks;
    spec.attention.window_tokens = info_.window_tokens;
    spec.cancelled = never_;
    return spec;
  }

  // Whether the executor has taken one in; `prompt` is set only then.
  bool Add(int text_before, int frames, int text_after, Prompt& prompt) {
    SequenceSpec spec = MakeSpec(text_before, frames, text_after);
    Prompt added;
    added.id = spec.id;
    added.length = static_cast<int>(spec.token_ids.size());
    added.frames = frames;
    added.layerwise = NeedsWholePrompt(spec.attention.semantics);
    added.forecast = ForecastPairs(VisionRows(spec), spec.attention);
    const int pages = (added.length + kMostOutputs + kPageTokens - 1) / kPageTokens;
    if (next_page_ + pages > info_.num_pages) return false;
    if (added.length + kMostOutputs > info_.max_context_tokens) return false;
    for (int i = 0; i < pages; ++i) spec.page_ids.push_back(next_page_ + i);
    if (!executor_.AddSequence(std::move(spec)).ok()) return false;
    next_page_ += pages;
    known_.push_back(added.id);
    prompt = std::move(added);
    return true;
  }

  // Runs and times a step unless there is no time for it.
  absl::StatusOr<bool> Run(StepPlan plan, const StepWork& work, bool first, double predicted) {
    if (spent_ > 0 && predicted > left()) return false;
    plan.step = next_step_++;
    VNSA_ASSIGN_OR_RETURN(const StepResult result, executor_.Run(plan));
    Timed timed{Phase::kPrefill, first, {}};
    if (!plan.vision.empty()) timed.phase = Phase::kVision;
    if (!plan.decode.empty()) timed.phase = Phase::kDecode;
    CostSample& sample = timed.sample;
    sample = {work, absl::ToDoubleSeconds(result.vision_time),
              absl::ToDoubleSeconds(result.prefill_time),
              absl::ToDoubleSeconds(result.decode_time)};
    spent_ += sample.vision_seconds + sample.prefill_seconds + sample.decode_seconds;
    timed_.push_back(timed);
    cost_ = CostModel(info_);
    cost_.Fit(Samples());
    return true;
  }
  absl::StatusOr<bool> Run(StepPlan plan, const StepWork& work, bool first = false) {
    return Run(std::move(plan), work, first, cost_.StepSeconds(work));
  }

  // What was measured, first steps only of phases of which there is nothing
  // else.
  std::vector<CostSample> Samples() const {
    std::vector<CostSample> samples;
    for (const Timed& timed : timed_) {
      const auto better = [&](const Timed& other) {
        return other.phase == timed.phase && !other.first;
      };
      if (timed.first && std::any_of(timed_.begin(), timed_.end(), better)) continue;
      samples.push_back(timed.sample);
    }
    return samples;
  }

  // The next rows (token-cut) or layers of one prompt.
  static void Slice(Prompt& prompt, int begin, int end, int num_layers, StepPlan& plan,
                    StepWork& work) {
    if (prompt.layerwise) {
      const double share = static_cast<double>(end - begin) / num_layers;
      plan.prefill.push_back({prompt.id, 0, prompt.length, begin, end});
      work.prefill_slices += share;
      work.prefill_tokens += prompt.length * share;
      work.prefill_pairs += static_cast<double>(prompt.forecast.pairs.total()) * share;
      prompt.prefilled = end == num_layers;
    } else {
      plan.prefill.push_back({prompt.id, begin, end, 0, num_layers});
      work.prefill_slices += 1;
      work.prefill_tokens += end - begin;
      work.prefill_pairs += static_cast<double>(prompt.forecast.Between(begin, end));
      prompt.prefilled = end == prompt.length;
    }
  }
  int UnitsOf(const Prompt& prompt) const {
    return prompt.layerwise ? info_.num_layers : prompt.length;
  }

  // In slices that grow from one page or layer to the longest. `first`: of its
  // kind.
  absl::Status Prefill(Prompt& prompt, bool first) {
    const int units = UnitsOf(prompt);
    int size = prompt.layerwise ? 1 : kPageTokens;
    const int largest = prompt.layerwise ? units : std::max(options_.prefill_tokens, kPageTokens);
    for (int begin = 0; begin < units;) {
      const int end = std::min(begin + size, units);
      StepPlan plan;
      StepWork work;
      Slice(prompt, begin, end, info_.num_layers, plan, work);
      VNSA_ASSIGN_OR_RETURN(const bool done, Run(std::move(plan), work, first && begin == 0));
      if (!done) {
        prompt.prefilled = false;
        return absl::OkStatus();
      }
      begin = end;
      size = std::min(2 * size, largest);
    }
    prompt.outputs = 1;
    return absl::OkStatus();
  }

  // One row of each, `repeats` times. `first`: of its kind.
  absl::Status Decode(absl::Span<Prompt* const> prompts, int repeats, bool first = false) {
    for (int i = 0; i < repeats; ++i) {
      StepPlan plan;
      StepWork work;
      for (Prompt* prompt : prompts) {
        if (!prompt->prefilled || prompt->outputs >= kMostOutputs) return absl::OkStatus();
        plan.decode.push_back(prompt->id);
        work.decode_rows += 1;
        work.decode_kv_tokens += prompt->length + prompt->outputs;
      }
      VNSA_ASSIGN_OR_RETURN(const bool done, Run(std::move(plan), work, first && i == 0));
      if (!done) return absl::OkStatus();
      for (Prompt* prompt : prompts) ++prompt->outputs;
    }
    return absl::OkStatus();
  }

  // Prefills prompts [begin, end) of `short_` in one step; they are of `tokens`
  // tokens.
  absl::StatusOr<bool> PrefillShort(size_t begin, size_t end, int tokens) {
    StepPlan plan;
    StepWork work;
    for (size_t i = begin; i < end; ++i) {
      if (!Add(tokens, 0, 0, short_[i])) return false;
      Slice(short_[i], 0, UnitsOf(short_[i]), info_.num_layers, plan, work);
    }
    VNSA_ASSIGN_OR_RETURN(const bool done, Run(std::move(plan), work, begin == 0));
    for (size_t i = begin; i < end; ++i) {
      short_[i].prefilled = done;
      short_[i].outputs = 1;
    }
    return done;
  }

  // What every answer needs first: three prefills of one to three times the
  // length, one row.
  absl::Status MeasureOne() {
    short_.resize(static_cast<size_t>(std::clamp(info_.num_pages / 2, 1, kShortPrompts)));
    for (size_t i = 0; i < std::min<size_t>(3, short_.size()); ++i) {
      VNSA_ASSIGN_OR_RETURN(const bool done,
                            PrefillShort(i, i + 1, kShortTokens * (static_cast<int>(i) + 1)));
      if (!done) break;
    }
    Prompt* const first = short_.data();
    return Decode({&first, 1}, 3, true);
  }

  // Several prefills in a step, several rows.
  absl::Status MeasureBatch() {
    for (size_t i = 3; i < short_.size(); i += 4) {
      VNSA_ASSIGN_OR_RETURN(const bool done,
                            PrefillShort(i, std::min(i + 4, short_.size()), kShortTokens));
      if (!done) break;
    }
    std::vector<Prompt*> rows;
    for (Prompt& prompt : short_) rows.push_back(&prompt);
    for (size_t n = 2; n <= rows.size(); n *= 2) {
      VNSA_RETURN_IF_ERROR(Decode(absl::MakeSpan(rows).first(n), 2));
    }
    return absl::OkStatus();
  }

  absl::Status MeasureLong() {
    Prompt prompt;
    const auto affordable = [&](int length) {
      const double pairs = 0.5 * length * length;
      const double slices = static_cast<double>(length) / std::max(options_.prefill_tokens, 1);
      return cost_.PrefillSeconds(length, pairs, slices) <= kLongShare * left();
    };
    for (const int length : kLongest) {
      if (affordable(length) && Add(length - kMostOutputs, 0, 0, prompt)) break;
    }
    if (prompt.length == 0) return absl::OkStatus();
    VNSA_RETURN_IF_ERROR(Prefill(prompt, false));
    std::vector<Prompt*> rows = {&prompt};
    VNSA_RETURN_IF_ERROR(Decode(rows, 2));
    for (Prompt& other : short_) {
      if (rows.size() < 4) rows.push_back(&other);
    }
    return Decode(rows, 2);
  }

  absl::Status MeasureClip() {
    if (options_.vision_token_id < 0) return absl::OkStatus();
    constexpr double kPatches = kGridSide * kGridSide;
    const double frame = kPatchToToken * cost_.PrefillSeconds(kPatches, 0);
    const double share = std::min(kClipShare * options_.seconds, left());
    Prompt prompt;
    for (const int frames : {8, 4, 2}) {
      const double tokens = kPatches / 4 * frames;
      if (frames * frame + cost_.PrefillSeconds(tokens, 0.5 * tokens * tokens) > share) continue;
      if (Add(kTextBeside, frames, kTextBeside, prompt)) break;
    }
    if (prompt.frames == 0) return absl::OkStatus();
    for (int begin = 0, size = 1; begin < prompt.frames;) {
      const int end = std::min(begin + size, prompt.frames);
      StepPlan plan;
      plan.vision.push_back({prompt.id, 0, begin, end});
      StepWork work;
      work.vision_slices = 1;
      work.vision_patches = kPatches * (end - begin);
      VNSA_ASSIGN_OR_RETURN(const bool done, Run(std::move(plan), work, begin == 0,
                                                 begin == 0 ? frame : cost_.StepSeconds(work)));
      if (!done) return absl::OkStatus();
      if (begin > 0) size *= 2;
      begin = end;
    }
    return Prefill(prompt, true);
  }

  Executor& executor_;
  const ExecutorInfo info_;
  const WarmUpOptions options_;
  const std::shared_ptr<const std::atomic<bool>> never_ =
      std::make_shared<const std::atomic<bool>>(false);
  CostModel cost_;
  std::vector<Timed> timed_;
  double spent_ = 0;
  uint64_t next_step_ = 1, next_id_ = 1;
  int next_page_ = 0;
  std::vector<SequenceId> known_;
  std::vector<Prompt> short_;
};

}  // namespace

absl::StatusOr<std::vector<CostSample>> MeasureCosts(Executor& executor,
                                                     const WarmUpOptions& options) {
  if (options.seconds <= 0) return std::vector<CostSample>();
  return WarmUp(executor, options).Measure();
}

}  // namespace videonsa
