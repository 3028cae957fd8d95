#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/bounded_queue.h"
#include "runtime/base/clock.h"
#include "runtime/engine/engine.h"
#include "runtime/media/media_loader.h"
#include "runtime/serving/answer_writer.h"
#include "runtime/serving/clip_streams.h"
#include "runtime/serving/prompt_builder.h"
#include "runtime/serving/runtime.h"
#include "runtime/serving/visual_store.h"
#include "runtime/text/tokenizer.h"

namespace videonsa {

/// The runtime's parts and settings; CreateRuntime fills it with real ones, tests with fakes.
struct RuntimeParts {
  std::unique_ptr<Executor> executor;
  std::vector<std::unique_ptr<Executor>> more_executors;  ///< of further workers
  std::vector<int> gpus;  ///< the first GPU of each worker; empty on a CPU
  std::function<void(int worker)> on_worker_start;  ///< by each worker's thread; may be null
  ExecutorFactory restart;  ///< opens a failed worker's device again; may be null
  std::unique_ptr<MediaLoader> media;
  std::unique_ptr<Tokenizer> tokenizer;
  ModelFacts facts;
  PromptBuilder::Setup prompt;
  TenantSalts salts;  ///< random unless a test sets them
  EngineOptions engine;
  MetricsRegistry* metrics = nullptr;  ///< may be null; outlives the runtime
  int media_threads = 2;
  int cpu_threads = 1;
  int64_t patch_cache_bytes = int64_t{64} << 20;
  /// Clips with more patch bytes are decoded beside the vision tower, this much ahead of it.
  int64_t patch_buffer_bytes = int64_t{32} << 20;
};

/// Wires media, text, engine and delivery into one Runtime.
///
/// Threads of its own: media-i load and lay out questions with visuals, stream-i decode long clips
/// of admitted ones, one text thread lays out the others, delivery threads call sinks; the engine
/// has its two.
class RuntimeImpl : public Runtime, private AnswerControl {
 public:
  /// `clock` outlives it.
  RuntimeImpl(RuntimeParts parts, const Clock& clock);
  /// Ends what is open, then joins in the direction of the data: media, engine, delivery.
  ~RuntimeImpl() override;

  absl::StatusOr<RequestId> Submit(GenerateRequest request,
                                   std::shared_ptr<ResponseSink> sink) override;
  void Cancel(RequestId id) override;
  void Unpin(const SessionPin& pin) override { engine_.Unpin(pin.id); }
  absl::StatusOr<EstimateResult> Estimate(const GenerateRequest& request) override;
  absl::StatusOr<MediaFacts> Probe(const MediaSource& source) override;
  const ModelFacts& model() const override { return parts_.facts; }
  RuntimeStats Stats() const override;
  int Drain(absl::Duration timeout) override;

  /// What the engine says of itself, for tests and status.
  EngineSnapshot engine_snapshot() const { return engine_.Snapshot(); }
  const VisualStore& visuals() const { return visuals_; }

 private:
  struct Job {
    RequestId id;
    GenerateRequest request;
    std::shared_ptr<AnswerWriter> writer;
    std::shared_ptr<const std::atomic<bool>> cancelled;
    absl::Duration receive;
    absl::Time receive_time;
  };
  using JobQueue = BoundedQueue<Job>;

  void Stop(RequestId id) override;
  void WorkLoop(JobQueue& queue);
  absl::StatusOr<std::unique_ptr<PreparedPrompt>> Prepare(const Job& job);
  absl::StatusOr<std::vector<PromptVisual>> PlanAndCheck(const GenerateRequest& request);
  absl::Status LoadVisuals(const Job& job, std::vector<PromptVisual>& visuals);
  static int64_t PatchBytes(const PromptVisual& visual);
  bool IsStreamed(const GenerateRequest& request, const PromptVisual& visual) const;
  void OpenStreams(const Job& job, std::vector<PromptVisual>& visuals);
  /// PreparedPrompt::reopen: every visual of the prompt is decoded again.
  std::function<std::vector<std::shared_ptr<PatchSource>>()> Reopener(const Job& job,
                                                                      const SequenceSpec& spec);
  absl::StatusOr<std::vector<PromptVisual>> PlanVisuals(const GenerateRequest& request);
  static int64_t PeakBytes(const EstimateResult& estimate, int64_t patch_bytes,
                           const ExecutorInfo& info);

  RuntimeParts parts_;
  const Clock& clock_;
  const PromptBuilder builder_;
  VisualStore visuals_;
  DeliveryStage delivery_;
  ClipStreams streams_;  // outlives the engine's hold on its streams
  Engine engine_;
  JobQueue media_queue_;
  JobQueue text_queue_;
  std::vector<std::thread> threads_;
};

}  // namespace videonsa
