// CPU that the server spends on one streamed token beyond the model's own time: 16 streams open, a
// runtime that only emits tokens, the reader in another process.
//
// Usage: server_overhead_bench [STREAMS [TOKENS [STEP_MS]]]. Exit code 1 over the limit.
#include <grpcpp/grpcpp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "runtime/base/check.h"
#include "runtime/telemetry/log.h"
#include "server/videonsa_server.h"
#include "tests/support/fake_runtime.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa {
namespace {

constexpr double kLimitMicroseconds = 150;

absl::Duration ProcessCpu() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime);
}

// Reads `streams` answers of `tokens` tokens at once. Returns the exit code.
int RunClient(const std::string& address, int streams, int tokens) {
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const auto stub = v1::VideoQaService::NewStub(channel);
  std::vector<int> got(static_cast<size_t>(streams), 0);
  std::atomic<int> deltas{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < streams; ++i) {
    threads.emplace_back([&, i] {
      v1::AskStreamRequest request;
      v1::Turn& turn = *request.mutable_question()->add_turns();
      turn.set_role(v1::Turn::ROLE_USER);
      turn.add_parts()->set_text("Question " + std::to_string(i));
      request.mutable_question()->mutable_generation()->set_max_output_tokens(tokens);
      grpc::ClientContext context;
      auto reader = stub->AskStream(&context, request);
      v1::AskStreamResponse event;
      while (reader->Read(&event)) {
        got[static_cast<size_t>(i)] += event.delta().token_count();
        deltas += event.has_delta();
      }
      if (!reader->Finish().ok()) got[static_cast<size_t>(i)] = -1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  printf("  the reader got %d tokens in %d messages\n", streams * tokens, deltas.load());
  for (const int count : got) {
    if (count != tokens) return 1;
  }
  return 0;
}

// Takes tokens and throws them away: what the runtime costs by itself.
class NullSink : public ResponseSink {
 public:
  void OnAccepted(RequestId, int) override {}
  void OnProgress(const char*, int64_t, int64_t) override {}
  void OnPrefill(const PromptTokens&, int64_t, absl::Duration) override {}
  bool OnChunk(TokenChunk) override { return true; }
  void OnFinish(const absl::Status&, GenerateResult) override {}
};

GenerateRequest NullRequest(int stream, int tokens) {
  GenerateRequest request;
  request.turns.push_back(Turn{Role::kUser, {TextPart{"Question " + std::to_string(stream)}}});
  request.generation.max_output_tokens = tokens;
  return request;
}

absl::Duration RuntimeCpu(const FakeOptions& fake, int streams, int tokens) {
  FakeRuntime runtime(fake, Clock::Real());
  const absl::Duration before = ProcessCpu();
  for (int i = 0; i < streams; ++i) {
    VNSA_CHECK(runtime.Submit(NullRequest(i, tokens), std::make_shared<NullSink>()).ok());
  }
  VNSA_CHECK(runtime.WaitIdle(absl::Minutes(5)));
  return ProcessCpu() - before;
}

absl::Duration ServerCpu(const char* program, const FakeOptions& fake, int streams, int tokens) {
  std::string folder = std::filesystem::temp_directory_path() / "server_overhead_XXXXXX";
  VNSA_CHECK(mkdtemp(folder.data()) != nullptr);
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.admin_listen = "";
  options.metrics_listen = "";
  options.clips.dir = folder + "/clips";
  absl::Duration used;
  {
    MetricsRegistry metrics;
    auto server = VideonsaServer::Start(options, Clock::Real(), metrics);
    VNSA_CHECK(server.ok()) << server.status();
    (*server)->Serve(std::make_unique<FakeRuntime>(fake, Clock::Real()));
    const std::string address = "127.0.0.1:" + std::to_string((*server)->port());
    const absl::Duration before = ProcessCpu();
    const std::string command = std::string(program) + " --client " + address + " " +
                                std::to_string(streams) + " " + std::to_string(tokens);
    VNSA_CHECK_EQ(system(command.c_str()), 0);  // its CPU is the child's
    used = ProcessCpu() - before;
  }
  std::filesystem::remove_all(folder);
  return used;
}

int Main(int argc, char** argv) {
  if (argc == 5 && strcmp(argv[1], "--client") == 0) {
    return RunClient(argv[2], atoi(argv[3]), atoi(argv[4]));
  }
  const int streams = argc > 1 ? atoi(argv[1]) : 16;
  const int tokens = argc > 2 ? atoi(argv[2]) : 1000;
  SetLogLevel(LogLevel::kError);
  FakeOptions fake;
  fake.step = absl::Milliseconds(argc > 3 ? atof(argv[3]) : 5);
  printf("server overhead: %d streams, %d tokens each, one every %s\n", streams, tokens,
         absl::FormatDuration(fake.step).c_str());
  fflush(stdout);
  const double total = static_cast<double>(streams) * tokens;
  const double alone = absl::ToDoubleMicroseconds(RuntimeCpu(fake, streams, tokens)) / total;
  const double whole =
      absl::ToDoubleMicroseconds(ServerCpu(argv[0], fake, streams, tokens)) / total;
  const double overhead = whole - alone;
  printf("  runtime alone %.1f us, server %.1f us, overhead %.1f us of CPU a token (limit %.0f)\n",
         alone, whole, overhead, kLimitMicroseconds);
  return overhead <= kLimitMicroseconds ? 0 : 1;
}

}  // namespace
}  // namespace videonsa

int main(int argc, char** argv) { return videonsa::Main(argc, argv); }
