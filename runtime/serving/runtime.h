#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"
#include "runtime/api/generate_result.h"
#include "runtime/api/media_facts.h"
#include "runtime/base/clock.h"

namespace videonsa {

class MetricsRegistry;

/// Where a runtime gets its weights, memory and processes from; validated by Create.
struct RuntimeOptions {
  std::string model_dir;
  bool dummy_weights = false;         ///< --load-format dummy
  std::string attention;              ///< empty: as config.json says; else a semantics name
  std::string compute_type = "auto";  ///< "auto", "fp32" or "bf16"
  std::string device = "auto";        ///< as in runtime/api/device_names.h
  int tensor_parallel = 1;            ///< ranks of a worker that share its model
  int cpu_threads = 0;                ///< of all workers together; 0: all cores
  int cpu_workers = 1;                ///< groups of threads that each hold the model and pages
  /// Of all workers together; 0: a quarter of the memory available, at most 4 GiB, on GPUs what is
  /// free on each.
  int64_t kv_bytes = 0;
  int64_t max_context_tokens = 0;  ///< 0: the checkpoint's
  int max_running = 64;            ///< sequences in the engine
  int max_waiting = 256;           ///< requests in the queue
  int prefill_chunk_tokens = 0;    ///< 0: 512 on a CPU, 16384 on a GPU
  double warm_up_seconds = 0.3;    ///< steps timed for the cost model at start; 0: none
  int max_preemptions = 3;         ///< of one request by those of higher classes; 0: never
  bool batch_invariant = false;    ///< of a GPU (executor_factory.h); a CPU always is
  /// Clips whose patches take more are decoded beside the vision tower, this much ahead of it.
  int64_t patch_buffer_bytes = int64_t{32} << 20;
  std::string decoder_binary;  ///< path of videonsa-decoder
  int decoder_processes = 2;
  double default_fps = 2.0;
  int max_frames = 768;
  int default_max_output_tokens = 256;
  int max_output_tokens = 4096;
  /// Share of the KV memory that sessions may keep, in all and one tenant's.
  double session_kv_share = 0.5;
  double tenant_session_kv_share = 0.25;
  PreprocessMode preprocess_mode = PreprocessMode::kLmmsEval;
};

/// Facts about the loaded model and its limits; constant.
struct ModelFacts {
  std::string name;
  std::string weights_digest;  ///< hex SHA-256 over the sorted shard digests; "dummy" if random
  std::string compute_type;    ///< "fp32" or "bf16"
  std::string device = "cpu";  ///< or the GPU's name
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int layers = 0, q_heads = 0, kv_heads = 0, vocab_size = 0;
  int block_tokens = 64, selected_blocks = 0, window_tokens = 0;
  int64_t max_context_tokens = 0;
  PreprocessMode preprocess_mode = PreprocessMode::kLmmsEval;
  double default_fps = 2.0;
  int max_frames = 0;
  int max_output_tokens = 0;
  bool random_weights = false;
};

/// Load of the moment.
struct RuntimeStats {
  int running = 0;
  int waiting = 0;
  int64_t kv_pages_used = 0;
  int64_t kv_pages_total = 0;
  int64_t kv_pages_pinned = 0;  ///< of those used: kept by sessions
  int64_t kv_page_bytes = 0;
  int64_t preemptions = 0;  ///< requests put back in the queue for others of higher classes
  int decoder_processes = 0;
  int cpu_threads = 0;
  absl::Status failure;  ///< not OK once all devices were lost for good
  int workers = 1;
  int workers_serving = 1;       ///< the others have failed; they are being restarted, or lost
  int64_t cost_model_steps = 0;  ///< steps that predictions rest on
  double cost_model_error = 0;   ///< mean |predicted - real| / real over recent steps
  std::string cost_model;        ///< coefficients, one line for people
};

/// The server's inside: media, text, engine and workers behind one face.
///
/// Threads: all methods may be called from any thread and return without waiting for model work,
///          except Create, Probe, Estimate and Drain, which may take long.
class Runtime {
 public:
  virtual ~Runtime() = default;

  /// Queues a request; progress goes to `sink`. A refusal is returned, not sent to the sink.
  /// Errors: INVALID_ARGUMENT, UNAVAILABLE (QUEUE_FULL, DRAINING), RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<RequestId> Submit(GenerateRequest request,
                                           std::shared_ptr<ResponseSink> sink) = 0;

  /// Stops a request wherever it is; its sink gets CANCELLED unless it has finished. Idempotent.
  virtual void Cancel(RequestId id) = 0;

  /// Lets the pages of a session go; `pin.closed` must be set. Idempotent.
  virtual void Unpin(const SessionPin& pin) = 0;

  /// Cost of a request: probes the media, lays out the prompt, runs nothing else.
  virtual absl::StatusOr<EstimateResult> Estimate(const GenerateRequest& request) = 0;

  /// Looks at a stored file in a decoder process.
  /// Errors: INVALID_ARGUMENT with MEDIA_UNSUPPORTED, MEDIA_CORRUPT or MEDIA_TOO_LARGE.
  virtual absl::StatusOr<MediaFacts> Probe(const MediaSource& source) = 0;

  virtual const ModelFacts& model() const = 0;
  virtual RuntimeStats Stats() const = 0;

  /// Refuses new work and waits until the old has ended or `timeout` has passed, then ends the rest
  /// with FinishReason::kDrain. Returns how many were ended early.
  virtual int Drain(absl::Duration timeout) = 0;
};

/// Loads the model, starts decoder processes and threads.
/// Errors: FAILED_PRECONDITION (MODEL_INVALID and the file at fault), RESOURCE_EXHAUSTED (memory).
absl::StatusOr<std::unique_ptr<Runtime>> CreateRuntime(const RuntimeOptions& options,
                                                       const Clock& clock,
                                                       MetricsRegistry& metrics);

}  // namespace videonsa
