// Any bytes as a Question: refused with a typed error that fits the wire, or a request within every
// limit.
#include <cstddef>
#include <cstdint>

#include "google/rpc/status.pb.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "server/question_parser.h"
#include "server/status_conversion.h"
#include "videonsa/v1/video_qa.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa;
  v1::Question question;
  if (!question.ParseFromArray(data, static_cast<int>(size))) return 0;
  const QuestionLimits limits;
  ModelFacts model;
  model.max_frames = 768;
  model.max_output_tokens = 512;
  model.semantics = AttentionSemantics::kCausalNsa;
  const QuestionParser parser(limits, model);
  const QuestionParser::Resolver resolve =
      [](const std::string& name) -> absl::StatusOr<ClipLease> {
    if (name == "clips/known") return ClipLease{};
    return MakeError(absl::StatusCode::kNotFound, "CLIP_NOT_FOUND", "no clip");
  };
  const auto parsed = parser.Parse(question, resolve, [](const std::string& url) {
    if (url == "https://known.example/") return absl::OkStatus();
    return MakeError(absl::StatusCode::kPermissionDenied, "URL_NOT_ALLOWED", "the url is refused");
  });
  if (!parsed.ok()) {
    VNSA_CHECK(GetErrorInfo(parsed.status()).has_value()) << parsed.status();
    const grpc::Status wire = ToGrpcStatus(parsed.status(), "request");
    VNSA_CHECK(wire.error_message().size() <= 1024) << wire.error_message().size();
    VNSA_CHECK(wire.error_details().size() <= 4096) << wire.error_details().size();
    google::rpc::Status details;
    VNSA_CHECK(details.ParseFromString(wire.error_details())) << wire.error_message();
    return 0;
  }
  const GenerateRequest& request = parsed->request;
  VNSA_CHECK(!request.turns.empty() && request.turns.size() <= 64) << request.turns.size();
  VNSA_CHECK(request.turns.back().role == Role::kUser) << "last turn";
  const auto& generation = request.generation;
  if (generation.max_output_tokens) {
    VNSA_CHECK(*generation.max_output_tokens >= 1 && *generation.max_output_tokens <= 512)
        << *generation.max_output_tokens;
  }
  if (generation.temperature) {
    VNSA_CHECK(*generation.temperature >= 0 && *generation.temperature <= 10)
        << *generation.temperature;
  }
  if (generation.top_p) {
    VNSA_CHECK(*generation.top_p > 0 && *generation.top_p <= 1) << *generation.top_p;
  }
  return 0;
}
