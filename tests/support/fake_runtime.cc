#include "tests/support/fake_runtime.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/error.h"
#include "runtime/base/hash.h"

namespace videonsa {
namespace {

// All texts and digests of a question in one string: what the answer depends on.
std::string KeyOf(const GenerateRequest& request) {
  std::string key = request.system_instruction;
  for (const Turn& turn : request.turns) {
    for (const Part& part : turn.parts) {
      if (const auto* text = std::get_if<TextPart>(&part)) absl::StrAppend(&key, "|", text->text);
      if (const auto* video = std::get_if<VideoPart>(&part)) {
        absl::StrAppend(&key, "|", HexOf(video->source.sha256));
      }
      if (const auto* image = std::get_if<ImagePart>(&part)) {
        absl::StrAppend(&key, "|", HexOf(image->source.sha256));
      }
    }
  }
  return key;
}

std::string LastText(const GenerateRequest& request) {
  std::string last;
  for (const Turn& turn : request.turns) {
    for (const Part& part : turn.parts) {
      if (const auto* text = std::get_if<TextPart>(&part)) last = text->text;
    }
  }
  return last;
}

absl::StatusCode CodeNamed(const std::string& name) {
  for (int code = 1; code <= 16; ++code) {
    if (absl::StatusCodeToString(static_cast<absl::StatusCode>(code)) == name) {
      return static_cast<absl::StatusCode>(code);
    }
  }
  return absl::StatusCode::kUnknown;
}

}  // namespace

FakeOptions::FakeOptions() {
  model.name = "fake";
  model.weights_digest = "0123456789abcdef0123456789abcdef";
  model.compute_type = "fp32";
  model.layers = 2;
  model.q_heads = 4;
  model.kv_heads = 2;
  model.vocab_size = 1000;
  model.selected_blocks = 32;
  model.window_tokens = 256;
  model.max_context_tokens = 100000;
  model.max_frames = 768;
  model.max_output_tokens = 100000;
  model.random_weights = true;
}

FakeRuntime::FakeRuntime(const FakeOptions& options, const Clock& clock)
    : options_(options), clock_(clock), thread_([this] { Run(); }) {}

FakeRuntime::~FakeRuntime() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

std::string FakeRuntime::TokenText(const GenerateRequest& request, int index, int token_bytes) {
  const Sha256Digest digest = Sha256Of(absl::StrCat(KeyOf(request), "#", index));
  std::string text = absl::StrCat(HexOf(digest).substr(0, 4), " ");
  if (static_cast<int>(text.size()) < token_bytes) {
    text.append(static_cast<size_t>(token_bytes) - text.size(), 'x');
  }
  return text;
}

std::string FakeRuntime::AnswerText(const GenerateRequest& request, int tokens, int token_bytes) {
  std::string text;
  for (int i = 0; i < tokens; ++i) text += TokenText(request, i, token_bytes);
  return text;
}

absl::StatusOr<RequestId> FakeRuntime::Submit(GenerateRequest request,
                                              std::shared_ptr<ResponseSink> sink) {
  auto job = std::make_shared<Job>();
  int ahead = 0;
  {
    absl::MutexLock lock(&mutex_);
    last_ = request;
    if (draining_) return MakeError(absl::StatusCode::kUnavailable, "DRAINING", "draining");
    if (LastText(request) == "refuse" || static_cast<int>(jobs_.size()) >= options_.max_waiting) {
      return MakeError(absl::StatusCode::kUnavailable,
                       ErrorInfo{.reason = "QUEUE_FULL",
                                 .metadata = {{"waiting", absl::StrCat(jobs_.size())}},
                                 .retry_after = absl::Seconds(1)},
                       absl::StrCat("queue holds ", jobs_.size(), " questions"));
    }
    ++submitted_;
    job->id = RequestId{next_id_++};
    job->tokens = request.generation.max_output_tokens.value_or(options_.default_tokens);
    absl::string_view text = LastText(request);
    const std::string steer = LastText(request);
    text = steer;
    if (absl::ConsumePrefix(&text, "fail:")) job->fail = std::string(text);
    job->silent = steer == "silent";
    job->request = std::move(request);
    job->sink = std::move(sink);
    job->received = clock_.Monotonic();
    ahead = static_cast<int>(jobs_.size());
  }
  job->sink->OnAccepted(job->id, ahead);
  absl::MutexLock lock(&mutex_);
  jobs_.push_back(job);
  return job->id;
}

void FakeRuntime::Cancel(RequestId id) {
  absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<Job>& job : jobs_) {
    if (job->id == id && !job->cancelled) {
      job->cancelled = true;
      ++cancelled_;
    }
  }
}

void FakeRuntime::Unpin(const SessionPin&) {
  absl::MutexLock lock(&mutex_);
  ++unpinned_;
}

absl::StatusOr<EstimateResult> FakeRuntime::Estimate(const GenerateRequest& request) {
  EstimateResult result;
  result.prompt.text = static_cast<int64_t>(KeyOf(request).size());
  result.kv_pages = 1 + result.prompt.text / 64;
  result.kv_bytes = result.kv_pages * 65536;
  result.budget_fraction = 1;
  if (LastText(request) == "too long") {
    result.admissible = false;
    result.why = MakeError(absl::StatusCode::kInvalidArgument, "PROMPT_TOO_LONG", "too long");
  }
  return result;
}

absl::StatusOr<MediaFacts> FakeRuntime::Probe(const MediaSource& source) {
  std::ifstream file(source.path, std::ios::binary);
  std::string head(3, '\0');
  if (!file.read(head.data(), 3)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_CORRUPT", "the clip is too short");
  }
  if (head == "bad") {
    return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_CORRUPT", "the clip is damaged");
  }
  if (head == "die") {
    return MakeError(absl::StatusCode::kUnavailable, "DECODER_DIED", "the decoder died");
  }
  MediaFacts facts;
  facts.container = "mov,mp4";
  facts.codec = "h264";
  facts.width = 640;
  facts.height = 360;
  facts.duration = absl::Seconds(10);
  facts.average_fps = 25;
  facts.packet_count = 250;
  return facts;
}

RuntimeStats FakeRuntime::Stats() const {
  absl::MutexLock lock(&mutex_);
  RuntimeStats stats;
  stats.running = static_cast<int>(jobs_.size());
  stats.kv_pages_total = 100;
  stats.kv_pages_used = static_cast<int64_t>(jobs_.size());
  stats.cpu_threads = 1;
  stats.failure = failure_;
  return stats;
}

int FakeRuntime::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return jobs_.empty(); };
  if (mutex_.AwaitWithTimeout(absl::Condition(&idle), timeout)) return 0;
  const int cut = static_cast<int>(jobs_.size());
  for (const std::shared_ptr<Job>& job : jobs_) job->drained = true;
  mutex_.Await(absl::Condition(&idle));
  return cut;
}

void FakeRuntime::Step(int count) {
  absl::MutexLock lock(&mutex_);
  steps_ += count;
  const auto done = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return steps_ == 0; };
  mutex_.Await(absl::Condition(&done));
}

void FakeRuntime::Break() {
  absl::MutexLock lock(&mutex_);
  failure_ = absl::UnavailableError("device lost");
}

int FakeRuntime::submitted() const {
  absl::MutexLock lock(&mutex_);
  return submitted_;
}

int FakeRuntime::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

int FakeRuntime::unpinned() const {
  absl::MutexLock lock(&mutex_);
  return unpinned_;
}

int FakeRuntime::open() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(jobs_.size());
}

bool FakeRuntime::WaitIdle(absl::Duration limit) const {
  absl::MutexLock lock(&mutex_);
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return jobs_.empty(); };
  return mutex_.AwaitWithTimeout(absl::Condition(&idle), limit);
}

GenerateRequest FakeRuntime::last_request() const {
  absl::MutexLock lock(&mutex_);
  return last_;
}

absl::Duration FakeRuntime::step_cpu() const {
  clockid_t id;
  timespec time{};
  if (pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &id) == 0) {
    clock_gettime(id, &time);
  }
  return absl::DurationFromTimespec(time);
}

void FakeRuntime::Run() {
  absl::Time next = absl::Now();
  while (true) {
    std::vector<std::shared_ptr<Job>> jobs;
    bool step = true;
    {
      absl::MutexLock lock(&mutex_);
      const auto work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        if (stopping_ || steps_ > 0) return true;
        if (!options_.manual) return !jobs_.empty();
        return std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) {
          return job->cancelled || job->drained || !job->begun;
        });
      };
      mutex_.Await(absl::Condition(&work));
      if (stopping_) return;
      jobs = jobs_;
      step = !options_.manual || steps_ > 0;
    }
    if (options_.step > absl::ZeroDuration()) {
      next = std::max(next + options_.step, absl::Now());
      absl::SleepFor(next - absl::Now());
    }
    std::vector<RequestId> over;
    for (const std::shared_ptr<Job>& job : jobs) {
      bool ended;
      {
        absl::MutexLock lock(&mutex_);
        ended = job->cancelled;
      }
      if (ended) {
        Finish(*job, absl::CancelledError("cancelled"), FinishReason::kStop);
      } else if (step || !job->begun || job->drained) {
        ended = StepJob(*job, step);
      }
      if (ended) over.push_back(job->id);
    }
    absl::MutexLock lock(&mutex_);
    jobs_.erase(std::remove_if(jobs_.begin(), jobs_.end(),
                               [&over](const auto& job) {
                                 return std::find(over.begin(), over.end(), job->id) != over.end();
                               }),
                jobs_.end());
    if (options_.manual && step && steps_ > 0) --steps_;
  }
}

// Begins the job if need be and, if `token`, gives one token; returns whether the job is over.
bool FakeRuntime::StepJob(Job& job, bool token) {
  bool drained;
  {
    absl::MutexLock lock(&mutex_);
    drained = job.drained;
  }
  if (!job.begun) {
    job.sink->OnProgress("prefill", 1, 2);
    job.sink->OnPrefill(PromptTokens{10, 0}, 0, absl::Milliseconds(1));
    absl::MutexLock lock(&mutex_);
    job.begun = true;
  }
  if (drained) {
    Finish(job, absl::OkStatus(), FinishReason::kDrain);
    return true;
  }
  if (clock_.Monotonic() >= job.request.deadline) {
    Finish(job, absl::OkStatus(), FinishReason::kDeadline);
    return true;
  }
  if (!job.fail.empty()) {
    Finish(job, absl::Status(CodeNamed(job.fail), "secret /path 0xdeadbeef"), FinishReason::kStop);
    return true;
  }
  if (job.silent || !token) return false;
  TokenChunk chunk;
  chunk.text = TokenText(job.request, job.given, options_.token_bytes);
  chunk.token_count = 1;
  job.text += chunk.text;
  if (job.request.generation.want_logprobs) chunk.logprobs.push_back({job.given, -0.5F, {}});
  const bool read = job.sink->OnChunk(std::move(chunk));
  ++job.given;
  if (!read) {
    {
      absl::MutexLock lock(&mutex_);
      ++cancelled_;
    }
    Finish(job, absl::CancelledError("nobody reads"), FinishReason::kStop);
    return true;
  }
  if (job.given < job.tokens) return false;
  Finish(job, absl::OkStatus(), FinishReason::kLength);
  return true;
}

void FakeRuntime::Finish(Job& job, const absl::Status& status, FinishReason reason) {
  GenerateResult result;
  result.finish_reason = reason;
  result.usage.prompt.text = 10;
  result.usage.output_tokens = job.given;
  result.timing.total = clock_.Monotonic() - job.received;
  result.account.layers.resize(2);
  result.account.layers[0].dense = 55;
  result.account.layers[1].dense = 55;
  result.account.dense_pairs = 110;
  result.effective_generation = job.request.generation;
  result.answer_text = std::move(job.text);
  for (int i = 0; i < job.given; ++i) result.answer_ids.push_back(i);
  result.pinnable_pages = static_cast<int>(job.request.turns.size());
  if (status.ok() && job.request.pin != nullptr && !job.request.pin->closed.load()) {
    job.request.pin->pages = std::min(result.pinnable_pages, options_.most_pinned);
  }
  job.sink->OnFinish(status, std::move(result));
  job.sink.reset();
}

}  // namespace videonsa
