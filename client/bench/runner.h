#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/bench/sample.h"
#include "client/call_options.h"
#include "grpcpp/channel.h"

namespace videonsa::client {

/// A question of the load with what is known about its answer.
struct BenchItem {
  std::string name;
  proto::Question question;
  std::string expected;        ///< empty: not known
  bool expect_prefix = false;  ///< the answer must begin with it; else equal it
  std::string upload_path;     ///< file that kUpload requests send; empty: none
};

/// How the plan is carried out.
struct RunOptions {
  bool closed_loop = false;
  int concurrency = 1;     ///< closed loop
  int max_inflight = 512;  ///< open loop: an arrival beyond it is dropped and counted
  double duration_s = 0;   ///< closed loop: no request is begun after it; 0: no bound
  absl::Duration timeout = absl::Minutes(2);  ///< deadline of each request
  absl::Duration grace = absl::Seconds(30);   ///< after the deadline until a request counts as lost
  absl::Duration slow_read_delay = absl::Milliseconds(250);
  bool unique_prefix = false;  ///< a system text of its own for every request
  std::string bearer_token;
  Cancellation* cancellation = nullptr;
};

/// Called about four times a second from the thread of RunLoad.
struct RunProgress {
  double elapsed_s = 0;
  int64_t sent = 0, ended = 0, failed = 0, total = 0;
  int inflight = 0;
};

/// Sends the plan over `channels` by turns and returns one sample a request, in plan order.
///
/// Open loop: every request starts at its scheduled time whatever the server does; latencies are
/// measured from that time. Closed loop: `concurrency` users send when their answer has come.
/// Threads: blocks; answers are read by gRPC's own threads.
std::vector<Sample> RunLoad(const std::vector<PlannedRequest>& plan,
                            const std::vector<BenchItem>& items,
                            const std::vector<std::shared_ptr<grpc::Channel>>& channels,
                            const RunOptions& options,
                            const std::function<void(const RunProgress&)>& on_progress);

/// Bytes of an MP4 clip with an ignorable box at the end, so that the content is the same and the
/// hash is new. Other formats are returned as they are.
std::string MadeUnique(const std::string& clip, int64_t number);

}  // namespace videonsa::client
