#include "client/openai/api_error.h"

#include <gtest/gtest.h>

#include "client/error.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"

namespace videonsa::openai {
namespace {

struct Row {
  grpc::StatusCode code;
  const char* reason;
  int http_status;
  const char* type;
};

TEST(ApiErrorTest, EveryCodeHasItsHttpStatus) {
  const Row rows[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID", 400, "invalid_request_error"},
      {grpc::StatusCode::INVALID_ARGUMENT, "MEDIA_CORRUPT", 400, "invalid_request_error"},
      {grpc::StatusCode::UNAUTHENTICATED, "TOKEN_MISSING", 401, "authentication_error"},
      {grpc::StatusCode::PERMISSION_DENIED, "URL_NOT_ALLOWED", 403, "permission_error"},
      {grpc::StatusCode::NOT_FOUND, "CLIP_NOT_FOUND", 404, "not_found_error"},
      {grpc::StatusCode::FAILED_PRECONDITION, "CLIP_NOT_READY", 409, "conflict_error"},
      {grpc::StatusCode::FAILED_PRECONDITION, "CLIP_FAILED", 400, "invalid_request_error"},
      {grpc::StatusCode::ABORTED, "UPLOAD_BUSY", 409, "conflict_error"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", 429, "rate_limit_error"},
      {grpc::StatusCode::UNIMPLEMENTED, "NOT_IMPLEMENTED", 501, "not_implemented_error"},
      {grpc::StatusCode::UNAVAILABLE, "QUEUE_FULL", 503, "service_unavailable_error"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 504, "timeout_error"},
      {grpc::StatusCode::INTERNAL, "INTERNAL", 500, "server_error"},
      {grpc::StatusCode::DATA_LOSS, "STREAM_INCOMPLETE", 500, "server_error"},
  };
  for (const Row& row : rows) {
    const ApiError error =
        ToApiError(client::FromGrpc(client::TypedError(row.code, row.reason, "why 7 > 3")));
    EXPECT_EQ(error.http_status, row.http_status) << row.reason;
    EXPECT_EQ(error.type, row.type) << row.reason;
    EXPECT_EQ(error.code, row.reason);
    EXPECT_EQ(error.message, "why 7 > 3");
  }
}

TEST(ApiErrorTest, SaysWhenToComeBack) {
  const ApiError error = ToApiError(client::FromGrpc(
      client::TypedError(grpc::StatusCode::UNAVAILABLE, "QUEUE_FULL", "full", {}, 2.5)));
  ASSERT_TRUE(error.retry_after.has_value());
  EXPECT_EQ(*error.retry_after, absl::Seconds(2.5));
}

TEST(ApiErrorTest, TransportTextsAreNotPassedOn) {
  const ApiError error = ToApiError(client::FromGrpc(
      grpc::Status(grpc::StatusCode::UNAVAILABLE, "failed to connect to 10.1.2.3:8090")));
  EXPECT_EQ(error.code, "SERVER_UNREACHABLE");
  EXPECT_EQ(error.message.find("10.1.2.3"), std::string::npos);
}

TEST(ApiErrorTest, JsonIsTheFormatOfTheApi) {
  const auto body = nlohmann::json::parse(
      ToApiError(BadArgument("messages[0]", "FIELD_INVALID", "messages[0]: no \"role\"")).Json());
  EXPECT_EQ(body["error"]["message"], "messages[0]: no \"role\"");
  EXPECT_EQ(body["error"]["type"], "invalid_request_error");
  EXPECT_EQ(body["error"]["param"], "messages[0]");
  EXPECT_EQ(body["error"]["code"], "FIELD_INVALID");
  EXPECT_TRUE(nlohmann::json::parse(ToApiError(absl::InternalError("x")).Json())["error"]["param"]
                  .is_null());
}

TEST(ApiErrorTest, FieldsGetTheirNamesInTheCallersJson) {
  EXPECT_EQ(ParamOfField("question.turns[1].parts[0].clip", 2), "messages[3].content[0].clip");
  EXPECT_EQ(ParamOfField("question.turns[0].role", 0), "messages[0].role");
  EXPECT_EQ(ParamOfField("question.turns", 1), "messages");
  EXPECT_EQ(ParamOfField("question.generation.temperature", 0), "temperature");
  EXPECT_EQ(ParamOfField("question.generation.max_output_tokens", 0), "max_completion_tokens");
  EXPECT_EQ(ParamOfField("question.system_instruction", 1), "messages[0].content");
  EXPECT_EQ(ParamOfField("question.attention.mode", 0), "videonsa.attention.mode");
  EXPECT_EQ(ParamOfField("name", 0), "name");
}

}  // namespace
}  // namespace videonsa::openai
