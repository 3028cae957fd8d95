// A server without a model, to look at the client by hand and to test other clients:
// fake_server PORT [ANSWER-DELAY-MS]. Prints its address and runs until it is ended.
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "absl/time/clock.h"
#include "client/format.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

void SlowAnswer(absl::Duration delay, grpc::ServerWriter<proto::AskStreamResponse>* writer) {
  proto::AskStreamResponse event;
  event.mutable_accepted()->set_ask_id("ask-1");
  event.mutable_accepted()->set_queue_position(2);
  event.mutable_accepted()->mutable_prompt_tokens()->set_vision(4096);
  writer->Write(event);
  absl::SleepFor(delay * 5);
  for (const char* stage : {"decode", "vision", "prefill"}) {
    for (int done = 0; done <= 20; ++done) {
      event.mutable_progress()->set_stage(stage);
      event.mutable_progress()->set_done(done);
      event.mutable_progress()->set_total(20);
      writer->Write(event);
      absl::SleepFor(delay);
    }
  }
  std::istringstream words("A red fox crosses the snow from left to right, stops, and looks back.");
  for (std::string word; words >> word;) {
    event.mutable_delta()->set_text(word + " ");
    event.mutable_delta()->set_token_count(1);
    writer->Write(event);
    absl::SleepFor(delay);
  }
  *event.mutable_final() = SampleResult();
  writer->Write(event);
}

int Run(int argc, char** argv) {
  FakeState state;
  const int port = argc > 1 ? std::atoi(argv[1]) : 0;
  const absl::Duration delay = absl::Milliseconds(argc > 2 ? std::atoi(argv[2]) : 0);
  if (delay > absl::ZeroDuration()) {
    state.answer = [delay](auto*, const auto&, auto* writer) {
      SlowAnswer(delay, writer);
      return grpc::Status::OK;
    };
  }
  FakeServer server(state, port);
  std::printf("%s\n", server.address().c_str());
  std::fflush(stdout);
  // Ends with its standard input, so that a test that dies takes it along.
  while (std::getchar() != EOF) {
  }
  return 0;
}

}  // namespace
}  // namespace videonsa::client

int main(int argc, char** argv) { return videonsa::client::Run(argc, argv); }
