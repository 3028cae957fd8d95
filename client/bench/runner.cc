#include "client/bench/runner.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/bench/ask_call.h"
#include "client/bench/timer.h"
#include "client/digest.h"
#include "client/error.h"
#include "client/format.h"
#include "client/uploader.h"
#include "videonsa/v1/clip.grpc.pb.h"

namespace videonsa::client {
namespace {

constexpr double kProgressInterval = 0.25;

class LoadRun {
 public:
  LoadRun(const std::vector<PlannedRequest>& plan, const std::vector<BenchItem>& items,
          const std::vector<std::shared_ptr<grpc::Channel>>& channels, const RunOptions& options,
          const std::function<void(const RunProgress&)>& on_progress)
      : plan_(plan),
        items_(items),
        channels_(channels),
        options_(options),
        on_progress_(on_progress),
        samples_(plan.size()) {
    for (const auto& channel : channels) qa_.push_back(proto::VideoQaService::NewStub(channel));
    for (size_t i = 0; i < plan.size(); ++i) {
      samples_[i].plan = plan[i];
      samples_[i].own_prompt = options.unique_prefix;
      samples_[i].scheduled_s = options.closed_loop ? -1 : plan[i].at_s;
    }
  }

  std::vector<Sample> Run() {
    begin_s_ = MonotonicSeconds();
    for (size_t i = 0; i < plan_.size(); ++i) {
      if (!AwaitTurn(plan_[i])) break;
      {
        absl::MutexLock lock(&mutex_);
        if (!options_.closed_loop && inflight_ >= options_.max_inflight) {
          samples_[i].dropped = true;
          continue;
        }
        ++inflight_;
        ++sent_;
      }
      Send(i);
    }
    AwaitEnd();
    for (std::thread& thread : uploads_) thread.join();
    absl::MutexLock lock(&mutex_);
    return std::move(samples_);
  }

 private:
  double Now() const { return MonotonicSeconds() - begin_s_; }
  bool Stopped() const {
    return options_.cancellation != nullptr && options_.cancellation->cancelled();
  }

  // Waits for the request's time (open loop) or for a free user (closed loop); false: stop.
  bool AwaitTurn(const PlannedRequest& request) {
    while (!Stopped()) {
      const double now = Now();
      Progress(now);
      if (options_.closed_loop) {
        if (options_.duration_s > 0 && now >= options_.duration_s) return false;
        absl::MutexLock lock(&mutex_);
        const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return inflight_ < options_.concurrency;
        };
        if (mutex_.AwaitWithTimeout(absl::Condition(&free), absl::Milliseconds(100))) return true;
        continue;
      }
      const double wait = request.at_s - now;
      if (wait <= 0) return true;
      absl::SleepFor(absl::Seconds(std::min(wait, 0.1)));
    }
    return false;
  }

  void Send(size_t i) {
    switch (plan_[i].kind) {
      case RequestKind::kAsk:
        return SendAsk(i);
      case RequestKind::kEstimate:
        return SendEstimate(i);
      case RequestKind::kUpload:
        return SendUpload(i);
    }
  }

  proto::Question QuestionOf(const PlannedRequest& request) const {
    proto::Question question = items_[request.item].question;
    if (options_.unique_prefix) {
      question.set_system_instruction(absl::StrCat("Request ", request.index, "."));
    }
    if (!request.cold) return question;
    for (proto::Turn& turn : *question.mutable_turns()) {
      for (proto::Part& part : *turn.mutable_parts()) {
        if (part.has_clip() && !part.clip().inline_data().empty()) {
          part.mutable_clip()->set_inline_data(
              MadeUnique(part.clip().inline_data(), request.index));
        }
      }
    }
    return question;
  }

  void SendAsk(size_t i) {
    AskCall::Setup setup;
    setup.request.set_request_id(RandomUuid());
    *setup.request.mutable_question() = QuestionOf(plan_[i]);
    setup.deadline = absl::Now() + options_.timeout;
    setup.begin_s = begin_s_;
    setup.timer = &timer_;
    setup.bearer_token = options_.bearer_token;
    if (plan_[i].slow_reader) setup.read_delay = options_.slow_read_delay;
    Sample sample;
    {
      absl::MutexLock lock(&mutex_);
      sample = samples_[i];
    }
    auto call = std::make_shared<AskCall>(std::move(setup), std::move(sample),
                                          [this, i](Sample ended) { End(i, std::move(ended)); });
    {
      absl::MutexLock lock(&mutex_);
      calls_[i] = call;
    }
    call->Start(*qa_[i % qa_.size()]);
    if (plan_[i].cancel_after_s >= 0) {
      timer_.After(absl::Seconds(plan_[i].cancel_after_s), [call] { call->Cancel(); });
    }
  }

  void SendEstimate(size_t i) {
    struct Call {
      grpc::ClientContext context;
      proto::EstimateRequest request;
      proto::EstimateResponse response;
    };
    auto call = std::make_shared<Call>();
    *call->request.mutable_question() = QuestionOf(plan_[i]);
    call->context.set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout));
    if (!options_.bearer_token.empty()) {
      call->context.AddMetadata("authorization", absl::StrCat("Bearer ", options_.bearer_token));
    }
    const double sent = Now();
    qa_[i % qa_.size()]->async()->Estimate(
        &call->context, &call->request, &call->response,
        [this, i, sent, call](const grpc::Status& status) {
          {
            absl::MutexLock lock(&mutex_);
            Sample& sample = samples_[i];
            sample.estimate_first_s =
                absl::ToDoubleSeconds(FromProto(call->response.time_to_first_token()));
            sample.estimate_total_s = absl::ToDoubleSeconds(FromProto(call->response.total()));
          }
          EndUnary(i, sent, FromGrpc(status), 0);
        });
  }

  // Uploads block, so each has a thread; their number is bounded by max_inflight.
  void SendUpload(size_t i) {
    uploads_.emplace_back([this, i, sent = Now()] {
      const auto stub = proto::ClipService::NewStub(channels_[i % channels_.size()]);
      UploadOptions upload;
      upload.resume = false;
      upload.max_attempts = 3;
      upload.call.cancellation = options_.cancellation;
      upload.call.timeout = options_.timeout;
      upload.call.bearer_token = options_.bearer_token;
      const auto result = Uploader(*stub).Upload(items_[plan_[i].item].upload_path, upload);
      EndUnary(i, sent, result.status(), result.ok() ? result->sent_bytes : 0);
    });
  }

  void EndUnary(size_t i, double sent, const absl::Status& status, int64_t uploaded_bytes) {
    Sample sample;
    {
      absl::MutexLock lock(&mutex_);
      sample = samples_[i];
    }
    sample.sent_s = sent;
    if (sample.scheduled_s < 0) sample.scheduled_s = sent;
    sample.end_s = Now();
    sample.finished = status.ok();
    sample.code = CodeName(status.code());
    sample.reason = DetailsOf(status).reason;
    sample.uploaded_bytes = uploaded_bytes;
    End(i, std::move(sample));
  }

  void End(size_t i, Sample sample) {
    absl::MutexLock lock(&mutex_);
    calls_.erase(i);
    if (late_) {
      // Ended only because the run was over: nobody would have waited so long.
      sample.end_s = -1;
      sample.finished = false;
    }
    if (!sample.ok() && !sample.cancelled_by_us) ++failed_;
    samples_[i] = std::move(sample);
    --inflight_;
    ++ended_;
  }

  // Deadlines end every call; what has not ended well after its deadline is lost. Such calls are
  // cancelled, because they refer to this object.
  void AwaitEnd() {
    const double limit = Now() + absl::ToDoubleSeconds(options_.timeout + options_.grace);
    bool ending = false;
    while (true) {
      Progress(Now());
      std::vector<std::shared_ptr<AskCall>> open;
      {
        absl::MutexLock lock(&mutex_);
        const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return inflight_ == 0; };
        if (mutex_.AwaitWithTimeout(absl::Condition(&idle), absl::Milliseconds(100))) return;
        const bool overdue = Now() >= limit;
        if (ending || (!Stopped() && !overdue)) continue;
        ending = true;
        late_ = overdue;
        for (const auto& [i, call] : calls_) open.push_back(call);
      }
      for (const auto& call : open) call->Cancel();
    }
  }

  void Progress(double now) {
    if (!on_progress_ || now - last_progress_s_ < kProgressInterval) return;
    last_progress_s_ = now;
    RunProgress progress{.elapsed_s = now, .total = static_cast<int64_t>(plan_.size())};
    {
      absl::MutexLock lock(&mutex_);
      progress.sent = sent_;
      progress.ended = ended_;
      progress.failed = failed_;
      progress.inflight = inflight_;
    }
    on_progress_(progress);
  }

  const std::vector<PlannedRequest>& plan_;
  const std::vector<BenchItem>& items_;
  const std::vector<std::shared_ptr<grpc::Channel>>& channels_;
  const RunOptions& options_;
  const std::function<void(const RunProgress&)>& on_progress_;
  std::vector<std::unique_ptr<proto::VideoQaService::Stub>> qa_;
  double begin_s_ = 0;
  double last_progress_s_ = -1;       // thread of Run only
  std::vector<std::thread> uploads_;  // thread of Run only
  absl::Mutex mutex_;
  std::vector<Sample> samples_ ABSL_GUARDED_BY(mutex_);
  std::map<size_t, std::shared_ptr<AskCall>> calls_ ABSL_GUARDED_BY(mutex_);
  bool late_ ABSL_GUARDED_BY(mutex_) = false;
  int inflight_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t ended_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t failed_ ABSL_GUARDED_BY(mutex_) = 0;
  Timer timer_;  // last: its destructor runs calls that use what stands above
};

}  // namespace

std::vector<Sample> RunLoad(const std::vector<PlannedRequest>& plan,
                            const std::vector<BenchItem>& items,
                            const std::vector<std::shared_ptr<grpc::Channel>>& channels,
                            const RunOptions& options,
                            const std::function<void(const RunProgress&)>& on_progress) {
  LoadRun run(plan, items, channels, options, on_progress);
  return run.Run();
}

std::string MadeUnique(const std::string& clip, int64_t number) {
  if (clip.size() < 12 || clip.compare(4, 4, "ftyp") != 0) return clip;
  // A "free" box: big-endian size, type, content that every reader skips.
  std::string box(
      "\0\0\0\x18"
      "free",
      8);
  std::string content = absl::StrCat("videonsa", number);
  content.resize(16, ' ');
  return absl::StrCat(clip, box, content);
}

}  // namespace videonsa::client
