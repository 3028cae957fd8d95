#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/serving/runtime.h"

namespace videonsa {

/// Makes the runtime: CreateRuntime, or a fake one in tests.
using RuntimeFactory = std::function<absl::StatusOr<std::unique_ptr<Runtime>>(
    const RuntimeOptions& options, const Clock& clock, MetricsRegistry& metrics)>;

/// The whole life of a server process: options, listeners, model, signals, drain.
/// Prints "videonsa-server ready on ADDRESS ..." on stdout once it answers.
///
/// Requires: called from main before any thread is started (signals are blocked here).
/// Returns:  the exit code: 0 ended as asked, 1 device lost, 2 usage, 3 model, 4 address, 5 clip
/// folder.
int RunServer(const std::vector<std::string>& arguments, const RuntimeFactory& create);

}  // namespace videonsa
