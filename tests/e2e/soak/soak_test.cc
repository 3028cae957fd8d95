// size: one scenario with its server, its clients and its faults
// Load with faults on a whole server with the real CPU executor, real decoder processes and a tiny
// model: workers fail, decoders are killed, the disk is full, clients vanish, stop reading or have
// no time, sessions come and go. No request is lost, no answer is wrong, and at the end pages,
// sessions, descriptors and memory are as they were.
//
// VIDEONSA_SOAK_MINUTES sets the length ("make soak MINUTES=n"); without it a few seconds.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/executor/executor_factory.h"
#include "runtime/serving/runtime_impl.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/text/chat_config.h"
#include "server/videonsa_server.h"
#include "tests/support/model/model_folder.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa {
namespace {

constexpr int kClients = 10;
constexpr int kQuestions = 18;
constexpr int kWorkers = 2;
constexpr int kTurns = 3;
constexpr int kMaxTokens = 40;
// Longer than anything may take; a call that runs into it is lost.
constexpr auto kLost = std::chrono::seconds(120);

// The real executor, until it is told to fail.
class FaultyExecutor : public Executor {
 public:
  FaultyExecutor(std::unique_ptr<Executor> inner, std::atomic<bool>* fail)
      : inner_(std::move(inner)), fail_(fail) {}
  const ExecutorInfo& info() const override { return inner_->info(); }
  absl::Status AddSequence(SequenceSpec spec) override {
    return inner_->AddSequence(std::move(spec));
  }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    if (fail_->exchange(false)) return absl::UnavailableError("told to fail");
    return inner_->Run(plan);
  }
  AttentionAccount Account(SequenceId sequence) const override { return inner_->Account(sequence); }
  void ReleaseSequence(SequenceId sequence) override { inner_->ReleaseSequence(sequence); }

 private:
  const std::unique_ptr<Executor> inner_;
  std::atomic<bool>* const fail_;
};

std::string MediaBytes(const std::string& name) {
  return test::ReadFile(std::string(VIDEONSA_TEST_DATA) + "/e2e/" + name);
}

v1::Question QuestionOf(int i) {
  static const std::string clips[] = {MediaBytes("stream-of-water.mp4"),
                                      MediaBytes("sample_video_only.mp4"), ""};
  v1::Question question;
  v1::Turn& turn = *question.add_turns();
  turn.set_role(v1::Turn::ROLE_USER);
  if (!clips[i % 3].empty()) {
    v1::ClipInput& clip = *turn.add_parts()->mutable_clip();
    clip.set_inline_data(clips[i % 3]);
    clip.mutable_sampling()->set_num_frames(4 + 2 * (i % 5));
    clip.mutable_sampling()->set_max_pixels_per_frame(12544);
  }
  turn.add_parts()->set_text(absl::StrCat("question ", i, std::string(3 * (i % 4), '?')));
  v1::GenerationConfig& generation = *question.mutable_generation();
  generation.set_max_output_tokens(kMaxTokens - i);
  generation.set_temperature(i % 4 == 3 ? 0.8f : 0);
  generation.set_seed(static_cast<uint64_t>(i) + 1);
  question.set_priority(static_cast<v1::Priority>(1 + i % 3));
  return question;
}

struct Tally {
  std::atomic<int> requests{0}, answered{0}, refused{0}, cut{0}, lost{0}, wrong{0}, sessions{0};
};

class SoakTest : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGXFSZ, SIG_IGN);
    test::TinyModel model;
    model.vocab = 1024;
    model.semantics = "causal_nsa";
    test::WriteServingFolder(model, folder_);
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.admin_listen = options.metrics_listen = "";
    options.clips.dir = scratch_.path() + "/clips";
    options.clips.free_space_floor = 0;
    options.stream_stall = absl::Seconds(2);
    options.sessions.tenant = options.sessions.total = 12;
    options.sessions.default_ttl = absl::Seconds(5);
    auto started = VideonsaServer::Start(options, Clock::Real(), metrics_);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    auto runtime = MakeRuntime();
    runtime_ = runtime.get();
    server_->Serve(std::move(runtime));
    for (int i = 0; i < kQuestions; ++i) {
      v1::AskResult result;
      const grpc::Status status = Ask(Stub().get(), QuestionOf(i), &result);
      ASSERT_TRUE(status.ok()) << i << ": " << status.error_message();
      expected_.push_back(result.text());
    }
    // What a session answers alone. That it is what a fresh request answers is shown elsewhere
    // (session_model_test): as text, answers of a random model do not encode to what was generated.
    Session(Stub().get(), false);
    ASSERT_EQ(talk_.size(), static_cast<size_t>(kTurns));
  }

  std::unique_ptr<Executor> MakeExecutor(int worker) {
    ExecutorOptions options;
    options.model_dir = folder_.path();
    options.compute_type = ComputeType::kF32;
    options.threads = 1;
    options.kv_bytes = 4 << 20;
    options.max_rows = 128;
    options.feature_cache_bytes = 1 << 20;
    auto created = CreateExecutor(options);
    EXPECT_TRUE(created.ok()) << created.status();
    return std::make_unique<FaultyExecutor>(*std::move(created), &fail_[worker]);
  }

  std::unique_ptr<RuntimeImpl> MakeRuntime() {
    RuntimeParts parts;
    parts.executor = MakeExecutor(0);
    for (int i = 1; i < kWorkers; ++i) parts.more_executors.push_back(MakeExecutor(i));
    parts.restart = [this](int worker) -> absl::StatusOr<std::unique_ptr<Executor>> {
      return MakeExecutor(worker);
    };
    MediaOptions media;
    media.decoder_binary = std::string(VIDEONSA_BIN_DIR) + "/videonsa-decoder";
    auto loader = MediaLoader::Create(media, MediaMetrics::Create(metrics_));
    EXPECT_TRUE(loader.ok()) << loader.status();
    parts.media = *std::move(loader);
    parts.tokenizer = *Tokenizer::Load(folder_.path());
    parts.prompt.info = parts.executor->info();
    parts.prompt.chat = ReadChatConfig(folder_.path(), *parts.tokenizer)->tokens;
    parts.facts.name = "soak";
    parts.facts.semantics = parts.prompt.info.semantics;
    parts.facts.max_frames = media.max_frames;
    parts.facts.max_output_tokens = 4096;
    parts.engine.max_running = 8;
    parts.engine.max_waiting = 24;
    parts.engine.step.prefill_tokens = 128;
    parts.engine.step.seconds = 0.005;
    parts.metrics = &metrics_;
    parts.patch_cache_bytes = 2 << 20;
    return std::make_unique<RuntimeImpl>(std::move(parts), Clock::Real());
  }

  std::unique_ptr<v1::VideoQaService::Stub> Stub() {
    return v1::VideoQaService::NewStub(Channel());
  }
  std::shared_ptr<grpc::Channel> Channel() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                     grpc::InsecureChannelCredentials(), arguments);
  }

  static grpc::Status Ask(v1::VideoQaService::Stub* stub, const v1::Question& question,
                          v1::AskResult* result) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLost);
    v1::AskRequest request;
    *request.mutable_question() = question;
    v1::AskResponse response;
    const grpc::Status status = stub->Ask(&context, request, &response);
    *result = response.result();
    return status;
  }

  // A request whose client stayed: right, refused with a reason that a fault explains, or lost.
  void Judge(const grpc::Status& status, const std::string& got, const std::string& want) {
    ++tally_.requests;
    if (status.ok()) {
      ++tally_.answered;
      if (got == want) return;
      ++tally_.wrong;
      ADD_FAILURE() << "got \"" << got << "\" instead of \"" << want << "\"";
      return;
    }
    const grpc::StatusCode code = status.error_code();
    if (code == grpc::UNAVAILABLE || code == grpc::RESOURCE_EXHAUSTED || code == grpc::ABORTED) {
      ++tally_.refused;
      return;
    }
    ++tally_.lost;
    ADD_FAILURE() << "lost: " << code << " " << status.error_message();
  }

  // A request that its client cut short: what came is how the right answer begins.
  void JudgeCut(const std::string& got, const std::string& want) {
    ++tally_.requests;
    ++tally_.cut;
    if (want.compare(0, got.size(), got) == 0) return;
    ++tally_.wrong;
    ADD_FAILURE() << "got \"" << got << "\" of \"" << want << "\"";
  }

  enum class Way { kRead, kVanish, kShortDeadline, kStopReading };

  void Stream(v1::VideoQaService::Stub* stub, int i, Way way, int after) {
    grpc::ClientContext context;
    const auto limit = way == Way::kShortDeadline ? std::chrono::milliseconds(5 + 7 * after)
                                                  : std::chrono::milliseconds(kLost);
    context.set_deadline(std::chrono::system_clock::now() + limit);
    v1::AskStreamRequest request;
    *request.mutable_question() = QuestionOf(i);
    auto reader = stub->AskStream(&context, request);
    v1::AskStreamResponse event;
    std::string got;
    for (int events = 0; reader->Read(&event); ++events) {
      got += event.delta().text();
      if (way == Way::kVanish && events == after) context.TryCancel();
      if (way == Way::kStopReading && events == after) {
        std::this_thread::sleep_for(std::chrono::milliseconds(60));
      }
    }
    const grpc::Status status = reader->Finish();
    if (way == Way::kRead || way == Way::kStopReading) return Judge(status, got, expected_[i]);
    JudgeCut(got, expected_[i]);
  }

  // Uploads, asks about the stored clip, deletes it. The disk may be full in between.
  void StoredClip(v1::ClipService::Stub* clips, v1::VideoQaService::Stub* stub, int i) {
    v1::Question question = QuestionOf(i);
    v1::ClipInput& clip = *question.mutable_turns(0)->mutable_parts(0)->mutable_clip();
    const std::string bytes = clip.inline_data() + std::string(1, '\0');  // nobody else's clip
    v1::StartUploadRequest start;
    start.set_size_bytes(static_cast<int64_t>(bytes.size()));
    v1::StartUploadResponse started;
    grpc::ClientContext start_context;
    grpc::Status status = clips->StartUpload(&start_context, start, &started);
    if (!status.ok()) return CountUploadFailure();
    v1::UploadClipResponse uploaded;
    grpc::ClientContext upload_context;
    auto writer = clips->UploadClip(&upload_context, &uploaded);
    v1::UploadClipRequest message;
    message.mutable_header()->set_upload_id(started.upload_id());
    writer->Write(message);
    message.mutable_chunk()->set_data(bytes);
    message.mutable_chunk()->set_finish(true);
    writer->Write(message);
    writer->WritesDone();
    status = writer->Finish();
    std::string name = uploaded.clip().name();
    if (status.ok()) {
      grpc::ClientContext watch_context;
      v1::WatchClipRequest watch;
      watch.set_name(name);
      auto reader = clips->WatchClip(&watch_context, watch);
      v1::WatchClipResponse change;
      while (reader->Read(&change)) {
      }
      status = reader->Finish();
      if (change.clip().state() == v1::Clip::STATE_READY) {
        clip.set_clip(name);
        v1::AskResult result;
        const grpc::Status asked = Ask(stub, question, &result);
        Judge(asked, result.text(), expected_[i]);
      } else {
        CountUploadFailure();
      }
      grpc::ClientContext delete_context;
      v1::DeleteClipRequest remove;
      remove.set_name(name);
      v1::DeleteClipResponse removed;
      clips->DeleteClip(&delete_context, remove, &removed);
    } else {
      grpc::ClientContext abort_context;
      v1::AbortUploadRequest abort;
      abort.set_upload_id(started.upload_id());
      v1::AbortUploadResponse aborted;
      clips->AbortUpload(&abort_context, abort, &aborted);
      CountUploadFailure();
    }
  }
  void CountUploadFailure() {
    ++tally_.requests;
    ++tally_.refused;
  }

  // A conversation in a session; sometimes left to expire.
  void Session(v1::VideoQaService::Stub* stub, bool leave) {
    v1::CreateSessionRequest create;
    v1::Question first = QuestionOf(0);
    create.add_turns()->set_role(v1::Turn::ROLE_USER);
    *create.mutable_turns(0)->add_parts() = first.turns(0).parts(0);
    v1::CreateSessionResponse session;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLost);
    const grpc::Status created = stub->CreateSession(&context, create, &session);
    if (!created.ok()) return Judge(created, "", "");
    const bool first_time = talk_.empty();
    for (int turn = 0; turn < kTurns; ++turn) {
      v1::Question question;
      question.set_session(session.session());
      *question.mutable_generation() = first.generation();
      v1::Turn& user = *question.add_turns();
      user.set_role(v1::Turn::ROLE_USER);
      user.add_parts()->set_text(turn == 0 ? first.turns(0).parts(1).text()
                                           : absl::StrCat("and ", turn - 1, "?"));
      v1::AskResult result;
      const grpc::Status status = Ask(stub, question, &result);
      if (first_time && status.ok()) talk_.push_back(result.text());
      Judge(status, result.text(), talk_[static_cast<size_t>(turn)]);
      if (!status.ok()) break;  // the session is as it was before this turn
    }
    ++tally_.sessions;
    if (leave) return;
    grpc::ClientContext delete_context;
    v1::DeleteSessionRequest remove;
    remove.set_session(session.session());
    v1::DeleteSessionResponse removed;
    EXPECT_TRUE(stub->DeleteSession(&delete_context, remove, &removed).ok());
  }

  void Many(v1::VideoQaService::Stub* stub, int i) {
    v1::AskManyRequest request;
    *request.mutable_shared() = QuestionOf(i);
    v1::Turn& turn = *request.mutable_shared()->mutable_turns(0);
    const std::string text = turn.parts(1).text();
    turn.mutable_parts()->RemoveLast();
    for (int n = 0; n < 3; ++n) request.add_questions(text);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLost);
    auto reader = stub->AskMany(&context, request);
    v1::AskManyResponse response;
    int answers = 0;
    while (reader->Read(&response)) {
      ++answers;
      const grpc::Status status(static_cast<grpc::StatusCode>(response.error().code()),
                                response.error().message());
      Judge(status, response.result().text(), expected_[i]);
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(!status.ok() || answers == 3) << answers;
    if (!status.ok()) Judge(status, "", "");
  }

  void Client(int number, absl::Time end) {
    std::mt19937 random(static_cast<uint32_t>(number) + 1);
    auto channel = Channel();
    auto stub = v1::VideoQaService::NewStub(channel);
    auto clips = v1::ClipService::NewStub(channel);
    const auto draw = [&random](int bound) { return static_cast<int>(random() % bound); };
    while (absl::Now() < end) {
      const int i = draw(kQuestions);
      const int with_clip = i % 3 == 2 ? i - 1 : i;
      switch (draw(10)) {
        case 0:
        case 1:
        case 2: {
          v1::AskResult result;
          const grpc::Status status = Ask(stub.get(), QuestionOf(i), &result);
          Judge(status, result.text(), expected_[i]);
          break;
        }
        case 3:
          Stream(stub.get(), i, Way::kRead, 0);
          break;
        case 4:
          Stream(stub.get(), i, Way::kVanish, draw(8));
          break;
        case 5:
          Stream(stub.get(), i, Way::kShortDeadline, draw(20));
          break;
        case 6:
          Stream(stub.get(), i, Way::kStopReading, draw(6));
          break;
        case 7:
          StoredClip(clips.get(), stub.get(), with_clip);
          break;
        case 8:
          Session(stub.get(), draw(4) == 0);
          break;
        default:
          Many(stub.get(), with_clip);
      }
    }
  }

  void Faults(absl::Time end) {
    std::mt19937 random(99);
    while (absl::Now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(150 + random() % 500));
      switch (random() % 3) {
        case 0:
          for (const pid_t child : Children()) kill(child, SIGKILL);
          ++decoders_killed_;
          break;
        case 1:
          fail_[random() % kWorkers] = true;
          ++workers_failed_;
          break;
        default: {
          rlimit before{};
          getrlimit(RLIMIT_FSIZE, &before);
          rlimit full = before;
          full.rlim_cur = 4096;
          setrlimit(RLIMIT_FSIZE, &full);
          std::this_thread::sleep_for(std::chrono::milliseconds(100));
          setrlimit(RLIMIT_FSIZE, &before);
          ++disk_full_;
        }
      }
    }
  }

  static std::set<pid_t> Children() {
    std::set<pid_t> children;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "children");
      for (pid_t child; file >> child;) children.insert(child);
    }
    return children;
  }

  static std::string MachineAndDate() {
    std::string model = "unknown processor";
    std::ifstream cpuinfo("/proc/cpuinfo");
    for (std::string line; std::getline(cpuinfo, line);) {
      if (line.rfind("model name", 0) != 0) continue;
      model = line.substr(line.find(':') + 2);
      break;
    }
    return absl::StrCat(sysconf(_SC_NPROCESSORS_ONLN), " cores, ", model, ", ",
                        absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone()),
                        "\n");
  }
  static double ResidentMegabytes() {
    malloc_trim(0);
    std::ifstream file("/proc/self/statm");
    int64_t size = 0, resident = 0;
    file >> size >> resident;
    return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
  }
  static int OpenFiles() {
    int count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      ++count;
    }
    return count;
  }

  void RunClients(absl::Duration length) {
    const absl::Time end = absl::Now() + length;
    std::vector<std::thread> threads;
    for (int i = 0; i < kClients; ++i) threads.emplace_back([this, i, end] { Client(i, end); });
    threads.emplace_back([this, end] { Faults(end); });
    for (std::thread& thread : threads) thread.join();
    for (std::atomic<bool>& fail : fail_) fail = false;
  }

  // Waits until nothing is open and the sessions that were left have expired.
  EngineSnapshot Settled() {
    EngineSnapshot snapshot;
    for (int wait = 0; wait < 600; ++wait) {
      snapshot = runtime_->engine_snapshot();
      const bool idle = snapshot.running + snapshot.waiting + snapshot.waiting_media == 0;
      if (idle && server_->core().sessions.size() == 0 && snapshot.pages_pinned == 0 &&
          snapshot.pages_used == snapshot.pages_cached &&
          snapshot.workers_serving == snapshot.workers) {
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return snapshot;
  }

  test::TemporaryFolder folder_, scratch_;
  MetricsRegistry metrics_;
  std::array<std::atomic<bool>, kWorkers> fail_{};
  std::unique_ptr<VideonsaServer> server_;
  RuntimeImpl* runtime_ = nullptr;
  std::vector<std::string> expected_, talk_;
  Tally tally_;
  std::atomic<int> decoders_killed_{0}, workers_failed_{0}, disk_full_{0};
};

TEST_F(SoakTest, NothingIsLostNothingIsWrongNothingIsLeft) {
  const char* const minutes = getenv("VIDEONSA_SOAK_MINUTES");
  const absl::Duration length =
      minutes != nullptr ? absl::Minutes(atof(minutes)) : absl::Seconds(8);
  RunClients(length / 4);  // threads, arenas and caches have their size
  Settled();
  const double resident_before = ResidentMegabytes();
  const int files_before = OpenFiles();
  RunClients(length * 3 / 4);
  const EngineSnapshot left = Settled();
  const double resident = ResidentMegabytes();
  const int files = OpenFiles();
  EXPECT_EQ(left.running + left.waiting + left.waiting_media, 0);
  EXPECT_EQ(left.pages_used, left.pages_cached);
  EXPECT_EQ(left.pages_pinned, 0);
  EXPECT_EQ(left.workers_serving, kWorkers);
  EXPECT_EQ(server_->core().sessions.size(), 0);
  EXPECT_LE(files, files_before + 8);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // A sanitizer keeps what was freed, and seconds are too short for all arenas to have their size.
  const double slack = length < absl::Minutes(1) ? 100 : 8;
  EXPECT_LE(resident, 1.15 * resident_before + slack);
#endif
  EXPECT_GT(tally_.answered, 0);
  EXPECT_EQ(tally_.lost, 0);
  EXPECT_EQ(tally_.wrong, 0);
  // Everybody is still answered.
  for (int i = 0; i < kQuestions; ++i) {
    v1::AskResult result;
    const grpc::Status status = Ask(Stub().get(), QuestionOf(i), &result);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(result.text(), expected_[i]);
  }
  const std::string report = absl::StrFormat(
      "soak: %.1f min, %d requests: %d answered, %d refused with a reason, %d cut by their "
      "clients, %d sessions; faults: %d times decoders killed, %d workers failed, %d times disk "
      "full; %d preemptions; lost %d, wrong %d; pages held %d of %d, resident %.0f MB after %.0f "
      "MB, descriptors "
      "%d after %d: %s\n",
      absl::ToDoubleMinutes(length), tally_.requests.load(), tally_.answered.load(),
      tally_.refused.load(), tally_.cut.load(), tally_.sessions.load(), decoders_killed_.load(),
      workers_failed_.load(), disk_full_.load(), left.preemptions, tally_.lost.load(),
      tally_.wrong.load(), left.pages_used - left.pages_cached, left.pages_total, resident,
      resident_before, files, files_before, HasFailure() ? "FAILED" : "OK");
  std::fputs(report.c_str(), stdout);
  if (const char* const file = getenv("VIDEONSA_SOAK_REPORT")) {
    std::ofstream(file) << MachineAndDate() << report;
  }
  EXPECT_EQ(server_->Drain(absl::ZeroDuration(), absl::Seconds(20)), 0);
}

}  // namespace
}  // namespace videonsa
