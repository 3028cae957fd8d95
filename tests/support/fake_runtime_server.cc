// The real server process around a FakeRuntime: for tests of uploads, signals and load that need a
// process but no model.
#include "server/run_server.h"
#include "tests/support/fake_runtime.h"

int main(int argc, char** argv) {
  return videonsa::RunServer(
      {argv + 1, argv + argc},
      [](const videonsa::RuntimeOptions&, const videonsa::Clock& clock,
         videonsa::MetricsRegistry&) -> absl::StatusOr<std::unique_ptr<videonsa::Runtime>> {
        return std::unique_ptr<videonsa::Runtime>(
            new videonsa::FakeRuntime(videonsa::FakeOptions(), clock));
      });
}
