#include "client/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

grpc::Status Make(grpc::StatusCode code, const std::string& message,
                  std::initializer_list<const google::protobuf::Message*> details) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  for (const auto* detail : details) status.add_details()->PackFrom(*detail);
  return grpc::Status(code, message, status.SerializeAsString());
}

google::rpc::ErrorInfo Info(const std::string& reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("videonsa.v1");
  return info;
}

TEST(Error, EveryDetailIsDecoded) {
  google::rpc::ErrorInfo info = Info("TOO_MANY_FRAMES");
  (*info.mutable_metadata())["limit"] = "768";
  (*info.mutable_metadata())["resource_name"] = "clips/x";
  google::rpc::BadRequest bad;
  auto& violation = *bad.add_field_violations();
  violation.set_field("question.turns[0].parts[0].clip.sampling");
  violation.set_description("900 frames");
  google::rpc::QuotaFailure quota;
  quota.add_violations()->set_subject("tenant:a");
  google::rpc::ResourceInfo resource;
  resource.set_resource_type("clip");
  resource.set_resource_name("clips/x");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  google::rpc::RequestInfo request;
  request.set_request_id("r-9");
  const absl::Status status = FromGrpc(Make(grpc::StatusCode::INVALID_ARGUMENT, "900 > 768",
                                            {&info, &bad, &quota, &resource, &retry, &request}));
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(details.reason, "TOO_MANY_FRAMES");
  EXPECT_EQ(details.metadata.at("limit"), "768");
  EXPECT_EQ(details.fields[0].second, "900 frames");
  EXPECT_EQ(details.retry_after, absl::Seconds(2));
  const std::string text = ErrorText(status);
  for (const char* part : {"INVALID_ARGUMENT TOO_MANY_FRAMES: 900 > 768", "limit     768",
                           "question.turns[0].parts[0].clip.sampling: 900 frames", "tenant:a",
                           "clip clips/x", "r-9", "wait 2.00 s"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_EQ(text.find("clips/x"), text.rfind("clips/x")) << text;
}

// The table of the protocol: code, reason, whether the client may expect a repeat to help.
TEST(Error, AdviceFollowsTheCode) {
  struct Row {
    grpc::StatusCode code;
    const char* reason;
    const char* advice;
  };
  for (const Row& row :
       std::vector<Row>{{grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID", ""},
                        {grpc::StatusCode::INVALID_ARGUMENT, "MEDIA_UNSUPPORTED", ""},
                        {grpc::StatusCode::NOT_FOUND, "CLIP_NOT_FOUND", ""},
                        {grpc::StatusCode::ABORTED, "OFFSET_MISMATCH", "repeat the command"},
                        {grpc::StatusCode::DATA_LOSS, "CHECKSUM_MISMATCH", "repeat the command"},
                        {grpc::StatusCode::UNAVAILABLE, "QUEUE_FULL", "another server"},
                        {grpc::StatusCode::UNAVAILABLE, "DRAINING", "another server"},
                        {grpc::StatusCode::PERMISSION_DENIED, "URL_NOT_ALLOWED", ""},
                        {grpc::StatusCode::DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", "--timeout"},
                        {grpc::StatusCode::INTERNAL, "INTERNAL", ""}}) {
    const google::rpc::ErrorInfo info = Info(row.reason);
    const std::string text = ErrorText(FromGrpc(Make(row.code, "what happened", {&info})));
    EXPECT_THAT(text, HasSubstr(row.reason));
    if (*row.advice != 0) {
      EXPECT_THAT(text, HasSubstr(row.advice));
    } else {
      EXPECT_THAT(text, Not(HasSubstr("advice"))) << text;
    }
  }
}

TEST(Error, ConnectionFailureAsksForTheServer) {
  const absl::Status status =
      FromGrpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, "failed to connect"));
  EXPECT_THAT(ErrorText(status), HasSubstr("--server"));
  EXPECT_TRUE(IsTransient(status));
}

TEST(Error, ReasonsDecideWhatIsTransient) {
  const google::rpc::ErrorInfo info = Info("INTERNAL");
  EXPECT_FALSE(IsTransient(FromGrpc(Make(grpc::StatusCode::INTERNAL, "bug", {&info}))));
  EXPECT_TRUE(IsTransient(FromGrpc(grpc::Status(grpc::StatusCode::INTERNAL, "RST_STREAM"))));
  EXPECT_FALSE(IsTransient(FromGrpc(grpc::Status(grpc::StatusCode::NOT_FOUND, ""))));
}

TEST(Error, GarbageDetailsAreIgnored) {
  const absl::Status status =
      FromGrpc(grpc::Status(grpc::StatusCode::INTERNAL, "x\x1b[2J", "\xff\xff\xff"));
  EXPECT_EQ(DetailsOf(status).reason, "");
  EXPECT_EQ(ErrorText(status).find('\x1b'), std::string::npos);
}

TEST(Error, LocalErrorsLookTheSame) {
  const absl::Status status = LocalError(absl::StatusCode::kNotFound, "FILE_UNREADABLE", "no file");
  EXPECT_EQ(DetailsOf(status).reason, "FILE_UNREADABLE");
  EXPECT_EQ(ErrorText(status), "NOT_FOUND FILE_UNREADABLE: no file");
}

}  // namespace
}  // namespace videonsa::client
