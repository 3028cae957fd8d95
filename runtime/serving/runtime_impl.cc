#include "runtime/serving/runtime_impl.h"

#include <algorithm>
#include <random>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/metric_sets.h"

namespace videonsa {
namespace {

// Answers that may be open at once, in units of the engine's door: those that have ended there but
// whose sinks have not heard it yet are bounded as well.
constexpr int kDeliveryFactor = 2;

int MaxOpen(const EngineOptions& options) {
  return kDeliveryFactor * (options.max_running + options.max_waiting);
}

// A long clip holds its decoder for as long as its vision slices take: one is left to the others.
int StreamThreads(int decoders) { return std::max(1, decoders - 1); }

absl::Status CheckRequest(const GenerateRequest& request) {
  if (request.tenant.empty()) return InvalidField("tenant", "is empty");
  if (request.turns.empty()) return InvalidField("question.turns", "is empty");
  if (request.turns.back().role != Role::kUser) {
    return InvalidField("question.turns", "the last turn must be the user's");
  }
  if (request.must_pin && request.pin == nullptr) {
    return InvalidField("question.session", "pages are to be kept, but for no session");
  }
  return absl::OkStatus();
}

uint64_t RandomSeed() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random();
}

std::vector<std::unique_ptr<Executor>> TakeExecutors(RuntimeParts& parts) {
  std::vector<std::unique_ptr<Executor>> executors = std::move(parts.more_executors);
  executors.insert(executors.begin(), std::move(parts.executor));
  return executors;
}

}  // namespace

RuntimeImpl::RuntimeImpl(RuntimeParts parts, const Clock& clock)
    : parts_(std::move(parts)),
      clock_(clock),
      builder_(*parts_.tokenizer, parts_.prompt, parts_.salts),
      visuals_(parts_.media.get(), parts_.salts, clock, parts_.facts.preprocess_mode,
               parts_.patch_cache_bytes,
               parts_.metrics != nullptr ? MediaMetrics::Create(*parts_.metrics) : MediaMetrics{}),
      delivery_(1, MaxOpen(parts_.engine)),
      streams_({.threads = StreamThreads(parts_.media_threads),
                .max_requests = MaxOpen(parts_.engine) * (1 + parts_.engine.max_preemptions),
                .buffer_bytes = parts_.patch_buffer_bytes},
               &visuals_, [this](RequestId id) { engine_.MediaChanged(id); }),
      engine_(parts_.engine, TakeExecutors(parts_), clock,
              parts_.metrics != nullptr ? EngineMetrics::Create(*parts_.metrics, parts_.gpus)
                                        : EngineMetrics{},
              parts_.restart, parts_.on_worker_start),
      media_queue_(MaxOpen(parts_.engine)),
      text_queue_(MaxOpen(parts_.engine)) {
  for (int i = 0; i < std::max(parts_.media_threads, 1); ++i) {
    threads_.emplace_back([this] { WorkLoop(media_queue_); });
  }
  threads_.emplace_back([this] { WorkLoop(text_queue_); });
}

RuntimeImpl::~RuntimeImpl() {
  Drain(absl::ZeroDuration());
  streams_.Stop();
  media_queue_.Close();
  text_queue_.Close();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<RequestId> RuntimeImpl::Submit(GenerateRequest request,
                                              std::shared_ptr<ResponseSink> sink) {
  VNSA_RETURN_IF_ERROR(CheckRequest(request));
  VNSA_ASSIGN_OR_RETURN(StopMatcher stops, StopMatcher::Create(request.generation.stop));
  if (!delivery_.TryOpen()) {
    return MakeError(absl::StatusCode::kUnavailable,
                     ErrorInfo{.reason = "QUEUE_FULL", .retry_after = absl::Seconds(1)},
                     absl::StrCat("the queue is full: ", MaxOpen(parts_.engine),
                                  " answers are being delivered"));
  }
  Job job;
  job.receive = clock_.Monotonic();
  job.receive_time = clock_.Now();
  job.writer = std::make_shared<AnswerWriter>(std::move(sink), *parts_.tokenizer, std::move(stops),
                                              &delivery_, static_cast<AnswerControl*>(this));
  Request engine_request;
  engine_request.tenant = request.tenant;
  engine_request.priority = request.priority;
  engine_request.receive = job.receive;
  engine_request.deadline = request.deadline;
  engine_request.stream = job.writer;
  engine_request.pin = request.pin;
  engine_request.must_pin = request.must_pin;
  absl::StatusOr<RequestId> id = engine_.Submit(std::move(engine_request));
  if (!id.ok()) {
    delivery_.Close();
    return id.status();
  }
  job.id = *id;
  job.cancelled = engine_.CancelFlag(job.id);
  if (job.cancelled == nullptr) return job.id;  // it has ended already, its sink hears why
  JobQueue& queue = CountVisuals(request) > 0 ? media_queue_ : text_queue_;
  job.request = std::move(request);
  VNSA_CHECK(queue.TryPush(std::move(job)) || queue.closed()) << "I12: media queue overflow";
  return *id;
}

void RuntimeImpl::Cancel(RequestId id) { engine_.Cancel(id); }

void RuntimeImpl::Stop(RequestId id) { engine_.Stop(id); }

void RuntimeImpl::WorkLoop(JobQueue& queue) {
  while (std::optional<Job> job = queue.Pop()) {
    if (job->cancelled->load(std::memory_order_acquire)) continue;  // ended while it waited
    absl::StatusOr<std::unique_ptr<PreparedPrompt>> prompt = Prepare(*job);
    if (prompt.ok()) {
      engine_.Ready(job->id, *std::move(prompt));
    } else {
      engine_.Fail(job->id, prompt.status());
    }
  }
}

absl::StatusOr<std::unique_ptr<PreparedPrompt>> RuntimeImpl::Prepare(const Job& job) {
  const absl::Duration start = clock_.Monotonic();
  VNSA_ASSIGN_OR_RETURN(std::vector<PromptVisual> visuals, PlanAndCheck(job.request));
  OpenStreams(job, visuals);
  VNSA_RETURN_IF_ERROR(LoadVisuals(job, visuals));
  const absl::Duration loaded = clock_.Monotonic();
  VNSA_ASSIGN_OR_RETURN(std::unique_ptr<PreparedPrompt> prompt,
                        builder_.Build(job.request, std::move(visuals), RandomSeed()));
  prompt->reopen = Reopener(job, prompt->spec);
  Timing& timing = prompt->result.timing;
  timing.receive_time = job.receive_time;
  timing.queue = start - job.receive;
  timing.tokenize = clock_.Monotonic() - loaded;
  // Opening, probing and waiting for a decoder process or for another request's load.
  timing.fetch = std::max(loaded - start - timing.decode - timing.preprocess, absl::ZeroDuration());
  return prompt;
}

// Decoding is the dearest thing that a refused question could cost: refuse from sizes alone.
absl::StatusOr<std::vector<PromptVisual>> RuntimeImpl::PlanAndCheck(
    const GenerateRequest& request) {
  VNSA_ASSIGN_OR_RETURN(std::vector<PromptVisual> visuals, PlanVisuals(request));
  if (visuals.empty()) return visuals;  // nothing to save
  VNSA_ASSIGN_OR_RETURN(std::unique_ptr<PreparedPrompt> prompt,
                        builder_.Build(request, visuals, 0));
  VNSA_RETURN_IF_ERROR(CheckFits(*prompt, builder_.info(), parts_.engine.hidden_bytes));
  return visuals;
}

int64_t RuntimeImpl::PatchBytes(const PromptVisual& visual) {
  return visual.visual.grid.num_patches() * kPatchDim * int64_t{sizeof(float)};
}

// A stream is decoded once the worker asks for it: never, if pages or features cover the clip.
bool RuntimeImpl::IsStreamed(const GenerateRequest& request, const PromptVisual& visual) const {
  if (visual.visual.report.image) return false;
  return request.expects_reuse || PatchBytes(visual) > parts_.patch_buffer_bytes;
}

void RuntimeImpl::OpenStreams(const Job& job, std::vector<PromptVisual>& visuals) {
  ClipStreams::Clips clips;
  std::vector<size_t> places;
  size_t place = 0;
  for (const Turn& turn : job.request.turns) {
    for (const Part& part : turn.parts) {
      if (std::holds_alternative<TextPart>(part)) continue;
      const size_t i = place++;
      const auto* video = std::get_if<VideoPart>(&part);
      if (video == nullptr || !IsStreamed(job.request, visuals[i])) continue;
      visuals[i].key = visuals_.KeyOf(job.request.tenant, *video);
      // What an earlier load cost is not this request's; the stream tells what it costs itself.
      LoadedVisual& planned = visuals[i].visual;
      planned.patches = nullptr;
      planned.report.frames_decoded = 0;
      planned.decode_time = planned.preprocess_time = absl::ZeroDuration();
      clips.parts.emplace_back(*video);
      clips.grids.push_back(visuals[i].visual.grid);
      places.push_back(i);
    }
  }
  if (places.empty()) return;
  clips.id = job.id;
  clips.tenant = job.request.tenant;
  clips.cancelled = job.cancelled;
  clips.deadline = job.request.deadline;
  const std::vector<std::shared_ptr<PatchStream>> streams = streams_.Open(std::move(clips));
  for (size_t i = 0; i < places.size(); ++i) visuals[places[i]].source = streams[i];
}

// Inline bytes stay in memory for it until the answer has ended; the highest class never leaves.
std::function<std::vector<std::shared_ptr<PatchSource>>()> RuntimeImpl::Reopener(
    const Job& job, const SequenceSpec& spec) {
  if (spec.visuals.empty() || job.request.priority == Priority::kInteractive ||
      parts_.engine.max_preemptions == 0) {
    return nullptr;
  }
  ClipStreams::Clips clips;
  clips.id = job.id;
  clips.tenant = job.request.tenant;
  clips.cancelled = job.cancelled;
  clips.deadline = job.request.deadline;
  for (const Turn& turn : job.request.turns) {
    for (const Part& part : turn.parts) {
      if (const auto* video = std::get_if<VideoPart>(&part)) clips.parts.emplace_back(*video);
      if (const auto* image = std::get_if<ImagePart>(&part)) clips.parts.emplace_back(*image);
    }
  }
  for (const auto& visual : spec.visuals) clips.grids.push_back(visual->grid());
  return [this, clips = std::move(clips)] {
    const std::vector<std::shared_ptr<PatchStream>> streams = streams_.Open(clips);
    return std::vector<std::shared_ptr<PatchSource>>(streams.begin(), streams.end());
  };
}

// Loads those that are not streamed.
absl::Status RuntimeImpl::LoadVisuals(const Job& job, std::vector<PromptVisual>& visuals) {
  LoadControl control;
  control.cancelled = job.cancelled;
  control.deadline = job.request.deadline;
  control.progress = [&job](const char* stage, int64_t done, int64_t total) {
    job.writer->Progress(stage, done, total);
  };
  size_t place = 0;
  for (const Turn& turn : job.request.turns) {
    for (const Part& part : turn.parts) {
      if (std::holds_alternative<TextPart>(part)) continue;
      PromptVisual& visual = visuals[place++];
      if (visual.source != nullptr) continue;
      const auto* video = std::get_if<VideoPart>(&part);
      absl::StatusOr<VisualStore::Loaded> loaded =
          video != nullptr ? visuals_.Load(job.request.tenant, *video, control)
                           : visuals_.Load(job.request.tenant, std::get<ImagePart>(part), control);
      VNSA_RETURN_IF_ERROR(loaded.status());
      visual = {std::move(loaded->visual), loaded->key};
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PromptVisual>> RuntimeImpl::PlanVisuals(const GenerateRequest& request) {
  std::vector<PromptVisual> visuals;
  for (const Turn& turn : request.turns) {
    for (const Part& part : turn.parts) {
      absl::StatusOr<LoadedVisual> planned = absl::UnknownError("text");
      if (const auto* video = std::get_if<VideoPart>(&part)) {
        planned = visuals_.Plan(request.tenant, *video);
      } else if (const auto* image = std::get_if<ImagePart>(&part)) {
        planned = visuals_.Plan(request.tenant, *image);
      } else {
        continue;
      }
      VNSA_RETURN_IF_ERROR(planned.status());
      visuals.push_back({*std::move(planned), {}});
    }
  }
  return visuals;
}

// Pages and hidden states, patches until they are encoded and their features until they are
// prefilled, attention scratch, and what every prompt token costs the host: ids, positions, marks,
// the forecast, page keys, twice while a prompt is built.
int64_t RuntimeImpl::PeakBytes(const EstimateResult& estimate, int64_t patch_bytes,
                               const ExecutorInfo& info) {
  constexpr int64_t kHostTokenBytes = 128;
  const int64_t tokens = estimate.prompt.vision + estimate.prompt.text;
  return estimate.kv_bytes + patch_bytes + estimate.prompt.vision * info.feature_row_bytes +
         tokens * (info.scratch_row_bytes + kHostTokenBytes);
}

absl::StatusOr<EstimateResult> RuntimeImpl::Estimate(const GenerateRequest& request) {
  VNSA_RETURN_IF_ERROR(CheckRequest(request));
  VNSA_ASSIGN_OR_RETURN(std::vector<PromptVisual> visuals, PlanVisuals(request));
  double patches = 0;
  int64_t patch_bytes = 0;
  for (const PromptVisual& visual : visuals) {
    patches += static_cast<double>(visual.visual.grid.num_patches());
    patch_bytes += IsStreamed(request, visual)
                       ? std::min(PatchBytes(visual), parts_.patch_buffer_bytes)
                       : PatchBytes(visual);
  }
  EstimateResult estimate;
  for (const PromptVisual& visual : visuals) {
    estimate.visuals.push_back(visual.visual.report);
    estimate.visuals.back().tokens = visual.visual.grid.num_tokens();
    estimate.frames += static_cast<int64_t>(visual.visual.report.frame_times.size());
    estimate.prompt.vision += visual.visual.grid.num_tokens();
  }
  absl::StatusOr<std::unique_ptr<PreparedPrompt>> built =
      builder_.Build(request, std::move(visuals), 0);
  if (!built.ok()) {
    const auto info = GetErrorInfo(built.status());
    if (!info || info->reason != "CONTEXT_TOO_LONG") return built.status();
    estimate.admissible = false;
    estimate.why = built.status();
    return estimate;
  }
  const PreparedPrompt& prompt = **built;
  const KvNeed need = NeedOf(prompt, builder_.info());
  estimate.prompt = prompt.prompt_tokens;
  estimate.visuals = prompt.result.visuals;
  estimate.kv_pages = need.pages;
  estimate.kv_bytes = need.pages * builder_.info().page_bytes + need.hidden_bytes;
  estimate.peak_bytes = PeakBytes(estimate, patch_bytes, builder_.info());
  estimate.budget_fraction = prompt.forecast.budget_fraction();
  estimate.why = CheckFits(prompt, builder_.info(), parts_.engine.hidden_bytes);
  estimate.admissible = estimate.why.ok();
  if (const EngineSnapshot snapshot = engine_.Snapshot(); snapshot.cost) {
    const double tokens = static_cast<double>(prompt.spec.token_ids.size());
    const double first =
        snapshot.cost->VisionSeconds(patches) +
        snapshot.cost->PrefillSeconds(tokens, static_cast<double>(prompt.forecast.pairs.total()),
                                      NumPrefillSlices(prompt, parts_.engine.step.prefill_tokens));
    estimate.time_to_first_token = absl::Seconds(first);
    estimate.total = absl::Seconds(first + prompt.spec.sampling.max_output_tokens *
                                               snapshot.cost->DecodeSeconds(1, tokens));
  }
  return estimate;
}

absl::StatusOr<MediaFacts> RuntimeImpl::Probe(const MediaSource& source) {
  return parts_.media->Probe(source);
}

RuntimeStats RuntimeImpl::Stats() const {
  const EngineSnapshot snapshot = engine_.Snapshot();
  RuntimeStats stats;
  stats.running = snapshot.running;
  stats.waiting = engine_.num_waiting();
  stats.kv_pages_used = snapshot.pages_used;
  stats.kv_pages_total = snapshot.pages_total;
  stats.kv_pages_pinned = snapshot.pages_pinned;
  stats.preemptions = snapshot.preemptions;
  stats.kv_page_bytes = builder_.info().page_bytes;
  stats.decoder_processes = parts_.media->num_decoders();
  stats.cpu_threads = parts_.cpu_threads;
  if (snapshot.lost) stats.failure = snapshot.failure;
  stats.workers = snapshot.workers;
  stats.workers_serving = snapshot.workers_serving;
  if (snapshot.cost) {
    stats.cost_model_steps = snapshot.cost->num_observed();
    stats.cost_model_error = snapshot.cost->relative_error();
    stats.cost_model = snapshot.cost->ToString();
  }
  return stats;
}

int RuntimeImpl::Drain(absl::Duration timeout) {
  const int ended_early = engine_.Drain(timeout);
  delivery_.AwaitEmpty();
  return ended_early;
}

}  // namespace videonsa
