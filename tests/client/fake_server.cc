#include "tests/client/fake_server.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "client/digest.h"
#include "client/format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"

namespace videonsa::client {
namespace {

constexpr int kMaxChunk = 64 << 10;

class FakeClips final : public proto::ClipService::Service {
 public:
  explicit FakeClips(FakeState& state) : state_(state) {}

  grpc::Status StartUpload(grpc::ServerContext*, const proto::StartUploadRequest* request,
                           proto::StartUploadResponse* response) override {
    if (!state_.refuse.ok()) return state_.refuse;
    absl::MutexLock lock(&state_.mutex);
    for (const auto& [id, upload] : state_.uploads) {
      if (upload.complete && upload.sha256 == request->sha256()) {
        response->set_already_stored(true);
        *response->mutable_clip() = state_.clips[upload.clip_name];
        return grpc::Status::OK;
      }
      if (upload.request_id == request->request_id()) return Describe(id, response);
    }
    const std::string id = absl::StrCat("upload-", state_.next_id++);
    FakeState::Upload& upload = state_.uploads[id];
    upload.request_id = request->request_id();
    upload.sha256 = request->sha256();
    upload.size = request->size_bytes();
    upload.label = request->display_name();
    upload.clip_name = absl::StrCat("clips/", id);
    proto::Clip& clip = state_.clips[upload.clip_name];
    clip.set_name(upload.clip_name);
    clip.set_state(proto::Clip::STATE_UPLOADING);
    clip.set_display_name(upload.label);
    return Describe(id, response);
  }

  grpc::Status UploadClip(grpc::ServerContext*,
                          grpc::ServerReader<proto::UploadClipRequest>* reader,
                          proto::UploadClipResponse* response) override {
    int stream;
    {
      absl::MutexLock lock(&state_.mutex);
      stream = state_.upload_streams++;
    }
    proto::UploadClipRequest message;
    if (!reader->Read(&message) || !message.has_header()) {
      return TypedError(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID", "header is missing");
    }
    const std::string id = message.header().upload_id();
    int64_t here = 0;
    int chunk_index = 0;
    bool first = true;
    const int64_t offset = message.header().write_offset();
    do {
      absl::MutexLock lock(&state_.mutex);
      const auto found = state_.uploads.find(id);
      if (found == state_.uploads.end()) {
        return TypedError(grpc::StatusCode::NOT_FOUND, "UPLOAD_NOT_FOUND", "no such upload");
      }
      grpc::Status status;
      if (first && offset != static_cast<int64_t>(found->second.bytes.size())) {
        status = TypedError(grpc::StatusCode::ABORTED, "OFFSET_MISMATCH", "wrong offset",
                            {{"committed_size", absl::StrCat(found->second.bytes.size())}});
      } else if (!first) {
        if (stream == 0 && chunk_index++ == state_.corrupt_chunk) {
          (*message.mutable_chunk()->mutable_data())[0] ^= 1;
        }
        status = Take(found->second, message.chunk());
        here += static_cast<int64_t>(message.chunk().data().size());
      }
      if (!status.ok()) return status;
      if (state_.cut && state_.cut(stream, here, &status)) return status;
      first = false;
    } while (reader->Read(&message));
    return End(id, response);
  }

  grpc::Status QueryUpload(grpc::ServerContext*, const proto::QueryUploadRequest* request,
                           proto::QueryUploadResponse* response) override {
    absl::MutexLock lock(&state_.mutex);
    const auto found = state_.uploads.find(request->upload_id());
    if (found == state_.uploads.end()) {
      return TypedError(grpc::StatusCode::NOT_FOUND, "UPLOAD_NOT_FOUND", "no such upload");
    }
    response->set_committed_size(static_cast<int64_t>(found->second.bytes.size()));
    response->set_complete(found->second.complete);
    return grpc::Status::OK;
  }

  grpc::Status GetClip(grpc::ServerContext*, const proto::GetClipRequest* request,
                       proto::GetClipResponse* response) override {
    if (!state_.refuse.ok()) return state_.refuse;
    absl::MutexLock lock(&state_.mutex);
    return Find(request->name(), response->mutable_clip());
  }

  grpc::Status ListClips(grpc::ServerContext*, const proto::ListClipsRequest* request,
                         proto::ListClipsResponse* response) override {
    absl::MutexLock lock(&state_.mutex);
    // Two a page, so that paging is used.
    int index = 0;
    const int first = request->page_token().empty() ? 0 : std::stoi(request->page_token());
    for (const auto& [name, clip] : state_.clips) {
      if (index >= first && index < first + 2) *response->add_clips() = clip;
      ++index;
    }
    if (index > first + 2) response->set_next_page_token(absl::StrCat(first + 2));
    return grpc::Status::OK;
  }

  grpc::Status WatchClip(grpc::ServerContext*, const proto::WatchClipRequest* request,
                         grpc::ServerWriter<proto::WatchClipResponse>* writer) override {
    proto::WatchClipResponse response;
    absl::MutexLock lock(&state_.mutex);
    const grpc::Status status = Find(request->name(), response.mutable_clip());
    if (!status.ok()) return status;
    writer->Write(response);
    proto::Clip& clip = state_.clips[request->name()];
    clip.set_state(state_.probe_fails ? proto::Clip::STATE_FAILED : proto::Clip::STATE_READY);
    if (state_.probe_fails) {
      clip.set_error_reason("MEDIA_CORRUPT");
      clip.set_error_message("no frame could be decoded");
    }
    *response.mutable_clip() = clip;
    writer->Write(response);
    return grpc::Status::OK;
  }

  grpc::Status DeleteClip(grpc::ServerContext*, const proto::DeleteClipRequest* request,
                          proto::DeleteClipResponse*) override {
    absl::MutexLock lock(&state_.mutex);
    proto::Clip clip;
    const grpc::Status status = Find(request->name(), &clip);
    if (!status.ok()) return request->allow_missing() ? grpc::Status::OK : status;
    state_.clips.erase(request->name());
    return grpc::Status::OK;
  }

 private:
  grpc::Status Describe(const std::string& id, proto::StartUploadResponse* response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mutex) {
    const FakeState::Upload& upload = state_.uploads[id];
    response->set_upload_id(id);
    response->set_committed_size(static_cast<int64_t>(upload.bytes.size()));
    response->set_max_chunk_bytes(kMaxChunk);
    *response->mutable_clip() = state_.clips[upload.clip_name];
    return grpc::Status::OK;
  }

  static grpc::Status Take(FakeState::Upload& upload, const proto::UploadChunk& chunk) {
    if (chunk.data().size() > kMaxChunk) {
      return TypedError(grpc::StatusCode::INVALID_ARGUMENT, "CHUNK_TOO_LARGE", "chunk too large");
    }
    if (chunk.has_crc32c() && Crc32c(chunk.data()) != chunk.crc32c()) {
      return TypedError(grpc::StatusCode::DATA_LOSS, "CHECKSUM_MISMATCH", "chunk checksum differs");
    }
    if (chunk.offset() != static_cast<int64_t>(upload.bytes.size())) {
      return TypedError(grpc::StatusCode::ABORTED, "OFFSET_MISMATCH", "gap between chunks",
                        {{"committed_size", absl::StrCat(upload.bytes.size())}});
    }
    upload.bytes += chunk.data();
    if (!chunk.finish()) return grpc::Status::OK;
    Sha256 sha;
    sha.Update(upload.bytes);
    if (sha.Finish() != upload.sha256) {
      return TypedError(grpc::StatusCode::DATA_LOSS, "CHECKSUM_MISMATCH", "file digest differs");
    }
    upload.complete = true;
    return grpc::Status::OK;
  }

  grpc::Status End(const std::string& id, proto::UploadClipResponse* response) {
    absl::MutexLock lock(&state_.mutex);
    FakeState::Upload& upload = state_.uploads[id];
    response->set_committed_size(static_cast<int64_t>(upload.bytes.size()));
    response->set_complete(upload.complete);
    proto::Clip& clip = state_.clips[upload.clip_name];
    if (upload.complete) {
      clip.set_state(proto::Clip::STATE_PROBING);
      clip.set_size_bytes(upload.size);
      clip.set_sha256(upload.sha256);
    }
    *response->mutable_clip() = clip;
    return grpc::Status::OK;
  }

  grpc::Status Find(const std::string& name, proto::Clip* clip)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mutex) {
    const auto found = state_.clips.find(name);
    if (found == state_.clips.end()) {
      return TypedError(grpc::StatusCode::NOT_FOUND, "CLIP_NOT_FOUND",
                        absl::StrCat("no clip ", name));
    }
    *clip = found->second;
    return grpc::Status::OK;
  }

  FakeState& state_;
};

std::string QuestionText(const proto::Question& question) {
  std::string text;
  if (question.turns_size() == 0) return text;
  for (const proto::Part& part : question.turns(question.turns_size() - 1).parts()) {
    text += part.text();
  }
  return text;
}

class FakeQa final : public proto::VideoQaService::Service {
 public:
  explicit FakeQa(FakeState& state) : state_(state) {}

  grpc::Status AskStream(grpc::ServerContext* context, const proto::AskStreamRequest* request,
                         grpc::ServerWriter<proto::AskStreamResponse>* writer) override {
    {
      absl::MutexLock lock(&state_.mutex);
      state_.asked.push_back(*request);
      const auto token = context->client_metadata().find("authorization");
      if (token != context->client_metadata().end()) {
        state_.authorizations.emplace_back(token->second.data(), token->second.size());
      }
    }
    if (state_.answer) return state_.answer(context, *request, writer);
    proto::AskStreamResponse event;
    event.mutable_accepted()->set_ask_id("ask-1");
    writer->Write(event);
    for (const int done : {1, 2, 4}) {
      event.mutable_progress()->set_stage("prefill");
      event.mutable_progress()->set_done(done);
      event.mutable_progress()->set_total(4);
      writer->Write(event);
    }
    event.mutable_prefill();
    writer->Write(event);
    for (const std::string& text :
         {std::string("You asked: "), QuestionText(request->question())}) {
      event.mutable_delta()->set_text(text);
      event.mutable_delta()->set_token_count(1);
      writer->Write(event);
    }
    *event.mutable_final() = SampleResult();
    writer->Write(event);
    return grpc::Status::OK;
  }

  grpc::Status Estimate(grpc::ServerContext*, const proto::EstimateRequest*,
                        proto::EstimateResponse* response) override {
    if (!state_.refuse.ok()) return state_.refuse;
    response->mutable_prompt()->set_vision(5000);
    response->mutable_prompt()->set_text(20);
    response->set_frames(32);
    response->set_kv_pages(80);
    response->set_kv_bytes(123'456'789);
    response->set_admissible(true);
    response->mutable_time_to_first_token()->set_seconds(3);
    response->mutable_total()->set_seconds(4);
    return grpc::Status::OK;
  }

 private:
  FakeState& state_;
};

class FakeInfo final : public proto::ServerService::Service {
 public:
  explicit FakeInfo(FakeState& state) : state_(state) {}

  grpc::Status GetModel(grpc::ServerContext*, const proto::GetModelRequest*,
                        proto::GetModelResponse* response) override {
    if (!state_.refuse.ok()) return state_.refuse;
    proto::ModelInfo& model = *response->mutable_model();
    model.set_name("fake");
    model.set_max_context_tokens(32768);
    model.mutable_limits()->set_max_inline_clip_bytes(1 << 20);
    return grpc::Status::OK;
  }
  grpc::Status GetServerStatus(grpc::ServerContext*, const proto::GetServerStatusRequest*,
                               proto::GetServerStatusResponse* response) override {
    if (!state_.refuse.ok()) return state_.refuse;
    response->set_state(proto::GetServerStatusResponse::STATE_READY);
    response->set_version("0.0.1");
    response->set_running(3);
    return grpc::Status::OK;
  }

 private:
  FakeState& state_;
};

}  // namespace

grpc::Status TypedError(grpc::StatusCode code, const std::string& reason,
                        const std::string& message,
                        const std::map<std::string, std::string>& metadata, double retry_after_s) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("videonsa.v1");
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  details.add_details()->PackFrom(info);
  if (retry_after_s > 0) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(absl::Seconds(retry_after_s));
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(code, message, details.SerializeAsString());
}

struct FakeServer::Services {
  explicit Services(FakeState& state) : clips(state), qa(state), info(state) {}
  FakeClips clips;
  FakeQa qa;
  FakeInfo info;
};

FakeServer::FakeServer(FakeState& state, int port) : services_(std::make_unique<Services>(state)) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(&services_->clips);
  builder.RegisterService(&services_->qa);
  builder.RegisterService(&services_->info);
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

std::string FakeServer::address() const { return absl::StrCat("127.0.0.1:", port_); }

namespace {

void FillAttention(proto::AttentionReport& attention) {
  attention.set_semantics("causal_nsa");
  attention.set_mode(proto::AttentionConfig::MODE_NATIVE_SPARSE);
  attention.mutable_effective()->set_selected_blocks(16);
  attention.mutable_effective()->set_window_tokens(256);
  attention.set_dense_pairs(8'000'000);
  attention.mutable_used()->set_compressed(120'000);
  attention.mutable_used()->set_selected(600'000);
  attention.mutable_used()->set_window(200'000);
  attention.mutable_used()->set_total(920'000);
  attention.set_budget_fraction(0.115);
  attention.set_budget_fraction_without_compressed(0.1);
  attention.mutable_mean_gates()->set_compressed(0.31);
  attention.mutable_mean_gates()->set_selected(0.62);
  attention.mutable_mean_gates()->set_window(0.44);
  for (int layer = 0; layer < 16; ++layer) {
    proto::LayerAttention& one = *attention.add_layers();
    one.set_layer(layer);
    one.mutable_used()->set_compressed(7'500);
    one.mutable_used()->set_selected(37'500);
    one.mutable_used()->set_window(12'500);
    one.mutable_mean_gates()->set_compressed(0.31 + 0.01 * (layer % 5));
    one.mutable_mean_gates()->set_selected(0.42 + 0.02 * layer);
    one.mutable_mean_gates()->set_window(0.6 - 0.015 * layer);
  }
  double sum = 0;
  for (int block = 0; block < 64; ++block) sum += std::exp(-std::pow((block - 40) / 6.0, 2)) + 0.02;
  for (int block = 0; block < 64; ++block) {
    proto::BlockEvidence& evidence = *attention.add_blocks();
    evidence.set_block(block);
    *evidence.mutable_range()->mutable_start_offset() = ToProto(absl::Milliseconds(250) * block);
    *evidence.mutable_range()->mutable_end_offset() =
        ToProto(absl::Milliseconds(250) * (block + 1));
    evidence.set_share((std::exp(-std::pow((block - 40) / 6.0, 2)) + 0.02) / sum);
  }
}

}  // namespace

proto::AskResult SampleResult() {
  proto::AskResult result;
  result.set_ask_id("ask-1");
  result.set_finish_reason(proto::AskResult::FINISH_REASON_STOP);
  result.set_model_version("fake@0123");
  result.set_server_version("0.0.1");
  result.mutable_usage()->mutable_prompt()->set_text(40);
  result.mutable_usage()->mutable_prompt()->set_vision(4096);
  result.mutable_usage()->set_output_tokens(12);
  result.mutable_usage()->set_frames_used(32);
  proto::Timing& timing = *result.mutable_timing();
  *timing.mutable_queue() = ToProto(absl::Milliseconds(2));
  *timing.mutable_decode() = ToProto(absl::Milliseconds(180));
  *timing.mutable_vision_encode() = ToProto(absl::Milliseconds(900));
  *timing.mutable_prefill() = ToProto(absl::Milliseconds(2100));
  *timing.mutable_generate() = ToProto(absl::Milliseconds(640));
  *timing.mutable_time_to_first_token() = ToProto(absl::Milliseconds(3200));
  *timing.mutable_total() = ToProto(absl::Milliseconds(3850));
  proto::VisualReport& visual = *result.add_visuals();
  visual.set_source_width(1280);
  visual.set_source_height(720);
  visual.set_width(448);
  visual.set_height(252);
  visual.set_tokens(4096);
  visual.set_sampled_fps(2);
  for (int i = 0; i < 32; ++i) *visual.add_frame_times() = ToProto(absl::Milliseconds(500) * i);
  FillAttention(*result.mutable_attention());
  return result;
}

}  // namespace videonsa::client
