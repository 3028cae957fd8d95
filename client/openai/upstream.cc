#include "client/openai/upstream.h"

#include <utility>

#include "absl/time/clock.h"
#include "client/error.h"

namespace videonsa::openai {

absl::StatusOr<std::unique_ptr<Upstream>> Upstream::Create(const client::ChannelOptions& options,
                                                           int channels) {
  std::unique_ptr<Upstream> upstream(new Upstream);
  auto control = client::VideoNsaClient::Create(options);
  if (!control.ok()) return control.status();
  upstream->control_ = *std::move(control);
  for (int i = 0; i < channels; ++i) {
    const auto channel = client::OpenChannel(options);
    if (!channel.ok()) return channel.status();
    upstream->lines_.push_back({v1::VideoQaService::NewStub(*channel),
                                v1::ClipService::NewStub(*channel),
                                v1::ServerService::NewStub(*channel)});
  }
  return upstream;
}

Upstream::Line& Upstream::Next() { return lines_[next_++ % lines_.size()]; }

absl::StatusOr<v1::ModelInfo> Upstream::Model(absl::Duration max_age,
                                              const client::CallOptions& options) {
  {
    absl::MutexLock lock(&mutex_);
    if (absl::Now() - model_time_ < max_age) return model_;
  }
  client::ScopedCall call(options);
  v1::GetModelResponse response;
  const absl::Status status =
      client::FromGrpc(Next().info->GetModel(call.context(), {}, &response));
  if (!status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  model_ = response.model();
  model_time_ = absl::Now();
  return model_;
}

absl::Status Upstream::Health(absl::Duration timeout) {
  client::CallOptions options;
  options.timeout = timeout;
  const absl::StatusOr<bool> serving = control_->CheckHealth("", options);
  if (!serving.ok()) return serving.status();
  if (!*serving) {
    return client::LocalError(absl::StatusCode::kUnavailable, "NOT_SERVING",
                              "the inference server is loading or draining");
  }
  return absl::OkStatus();
}

}  // namespace videonsa::openai
