#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "client/client.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/server.grpc.pb.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::openai {

/// Channels to the inference servers behind one address.
///
/// A question and the uploads it needs go through one channel, so that behind a name with several
/// replicas they reach the same one; different channels may reach different ones.
/// Threads: any.
class Upstream {
 public:
  struct Line {
    std::unique_ptr<v1::VideoQaService::StubInterface> questions;
    std::unique_ptr<v1::ClipService::StubInterface> clips;
    std::unique_ptr<v1::ServerService::StubInterface> info;
  };

  /// Errors: those of client::OpenChannel.
  static absl::StatusOr<std::unique_ptr<Upstream>> Create(const client::ChannelOptions& options,
                                                          int channels);

  /// The channels in turn.
  Line& Next();
  /// The model; from memory while younger than `max_age`.
  absl::StatusOr<v1::ModelInfo> Model(absl::Duration max_age, const client::CallOptions& options);
  /// grpc.health.v1 of the server.
  absl::Status Health(absl::Duration timeout);

 private:
  Upstream() = default;

  std::vector<Line> lines_;
  std::unique_ptr<client::VideoNsaClient> control_;  // own connection: health under load
  std::atomic<size_t> next_{0};
  absl::Mutex mutex_;
  v1::ModelInfo model_ ABSL_GUARDED_BY(mutex_);
  absl::Time model_time_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace videonsa::openai
