// What a tenant may use: rate, questions at once, tokens a minute, storage.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "server/access/tenant_quotas.h"
#include "server/access/token_bucket.h"
#include "server/metered_sink.h"
#include "tests/server/access_fixture.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const MethodInfo& Ask() { return InfoOf(Method::kAsk); }
const MethodInfo& Get() { return InfoOf(Method::kGetClip); }

// ---- the bucket

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

TEST(TokenBucket, HoldsAMinuteAndFillsEvenly) {
  TokenBucket bucket;
  absl::Duration now = absl::Seconds(1000);
  EXPECT_EQ(bucket.WaitFor(1e9, now), absl::ZeroDuration()) << "no limit yet";
  bucket.SetLimit(60, now);
  for (int i = 0; i < 60; ++i) {
    EXPECT_EQ(bucket.WaitFor(1, now), absl::ZeroDuration());
    bucket.Take(1, now);
  }
  EXPECT_NEAR(Seconds(bucket.WaitFor(1, now)), 1, 1e-6);
  now += absl::Milliseconds(250);
  EXPECT_NEAR(Seconds(bucket.WaitFor(1, now)), 0.75, 1e-6);
  now += absl::Milliseconds(751);
  EXPECT_EQ(bucket.WaitFor(1, now), absl::ZeroDuration());
  now += absl::Hours(1);
  EXPECT_EQ(bucket.WaitFor(60, now), absl::ZeroDuration());
  bucket.Take(60, now);
  EXPECT_GT(bucket.WaitFor(1, now), absl::ZeroDuration()) << "an hour saved more than a minute's";
  EXPECT_EQ(bucket.WaitFor(61, now), absl::InfiniteDuration());
}

TEST(TokenBucket, DebtsArePaidOff) {
  TokenBucket bucket;
  bucket.SetLimit(600, absl::ZeroDuration());
  bucket.Take(1200, absl::ZeroDuration());
  EXPECT_NEAR(Seconds(bucket.WaitFor(1, absl::ZeroDuration())), 60.1, 1e-6);
  EXPECT_EQ(bucket.WaitFor(1, absl::Seconds(60.2)), absl::ZeroDuration());
}

TEST(TokenBucket, AChangedLimitKeepsWhatWasUsed) {
  TokenBucket bucket;
  bucket.SetLimit(100, absl::ZeroDuration());
  bucket.Take(90, absl::ZeroDuration());
  bucket.SetLimit(50, absl::ZeroDuration());
  EXPECT_GT(bucket.WaitFor(1, absl::ZeroDuration()), absl::ZeroDuration());
  bucket.SetLimit(100, absl::ZeroDuration());
  EXPECT_EQ(bucket.WaitFor(10, absl::ZeroDuration()), absl::ZeroDuration());
  EXPECT_GT(bucket.WaitFor(11, absl::ZeroDuration()), absl::ZeroDuration());
  bucket.SetLimit(0, absl::ZeroDuration());
  bucket.Take(1e6, absl::ZeroDuration());
  bucket.SetLimit(100, absl::ZeroDuration());
  EXPECT_LE(bucket.WaitFor(1, absl::ZeroDuration()), absl::Minutes(1))
      << "what was used without a limit counted";
}

// ---- quotas under a fake clock

class QuotasTest : public ::testing::Test {
 protected:
  void Start(const TenantLimits& limits, int named = 0, const std::string& file = "") {
    std::string path;
    if (!file.empty()) WriteText(path = folder_.path() + "/access.yaml", file);
    auto access = AccessControl::Create(path, limits, clock_, metrics_);
    ASSERT_TRUE(access.ok()) << access.status();
    access_ = *std::move(access);
    quotas_ = std::make_unique<TenantQuotas>(*access_, named, clock_, metrics_);
  }
  static std::string QuotaOf(const absl::Status& status) {
    const std::optional<ErrorInfo> info = GetErrorInfo(status);
    return info ? info->metadata.at(0).second : "";
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  MetricsRegistry metrics_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<TenantQuotas> quotas_;
};

TEST_F(QuotasTest, RatesAreCountedPerTenant) {
  Start({.requests_per_minute = 2});
  EXPECT_TRUE(quotas_->Enter("a", Get()).ok());
  EXPECT_TRUE(quotas_->Enter("a", Ask()).ok());
  const absl::Status refused = quotas_->Enter("a", Get()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(QuotaOf(refused), "requests_per_minute");
  EXPECT_EQ(GetErrorInfo(refused)->retry_after, absl::Seconds(30));
  EXPECT_TRUE(quotas_->Enter("b", Get()).ok());
  clock_.Advance(absl::Seconds(31));
  EXPECT_TRUE(quotas_->Enter("a", Get()).ok());
}

TEST_F(QuotasTest, OpenCallsEndWithTheirLastSlot) {
  Start({.questions = 1, .calls = 2});
  auto question = *quotas_->Enter("a", Ask());
  auto copy = question;
  EXPECT_EQ(QuotaOf(quotas_->Enter("a", Ask()).status()), "questions");
  auto other = *quotas_->Enter("a", Get());
  EXPECT_EQ(QuotaOf(quotas_->Enter("a", Get()).status()), "calls");
  EXPECT_TRUE(quotas_->Enter("b", Ask()).ok());
  question.reset();
  EXPECT_FALSE(quotas_->Enter("a", Ask()).ok());
  copy.reset();
  EXPECT_TRUE(quotas_->Enter("a", Ask()).ok());
}

TEST_F(QuotasTest, RefusedCallsUseNothingUp) {
  Start({.requests_per_minute = 2, .questions = 1});
  auto slot = *quotas_->Enter("a", Ask());
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(quotas_->Enter("a", Ask()).ok());
  EXPECT_TRUE(quotas_->Enter("a", Get()).ok());
}

TEST_F(QuotasTest, TokensAreChargedWhenTheyAreKnown) {
  Start({.prompt_tokens_per_minute = 1000, .output_tokens_per_minute = 60});
  quotas_->Charge("a", 4000, 0);
  EXPECT_EQ(QuotaOf(quotas_->Enter("a", Ask()).status()), "prompt_tokens_per_minute");
  EXPECT_TRUE(quotas_->Enter("a", Get()).ok()) << "clips cost no tokens";
  EXPECT_TRUE(quotas_->Enter("b", Ask()).ok());
  clock_.Advance(absl::Minutes(4));
  EXPECT_TRUE(quotas_->Enter("a", Ask()).ok());
  quotas_->Charge("a", 0, 60);
  EXPECT_EQ(QuotaOf(quotas_->Enter("a", Ask()).status()), "output_tokens_per_minute");
  clock_.Advance(absl::Seconds(2));
  EXPECT_TRUE(quotas_->Enter("a", Ask()).ok());
}

TEST_F(QuotasTest, TheFileOverridesAndAReloadCounts) {
  const std::string token = TokenLine("a-token-of-tenant-a", "a", "ask");
  Start({.requests_per_minute = 1}, 0,
        "tokens:\n" + token + "tenants: {a: {requests-per-minute: 0}}");
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(quotas_->Enter("a", Get()).ok());
  EXPECT_TRUE(quotas_->Enter("b", Get()).ok());
  EXPECT_FALSE(quotas_->Enter("b", Get()).ok());
  WriteText(folder_.path() + "/access.yaml", "tokens:\n" + token);
  ASSERT_TRUE(access_->Reload().ok());
  EXPECT_TRUE(quotas_->Enter("a", Get()).ok());
  EXPECT_FALSE(quotas_->Enter("a", Get()).ok());
}

TEST_F(QuotasTest, MetricsNameOnlyTheFirstTenants) {
  Start({}, 2, AccessServer::Tenants({"bee", "ant", "cat"}));
  for (const char* tenant : {"cat", "bee", "ant", "dog"}) {
    EXPECT_TRUE(quotas_->Enter(tenant, Get()).ok());
  }
  quotas_->Charge("ant", 7, 3);
  const std::string text = metrics_.Text();
  for (const char* line : {"videonsa_tenant_calls_total{tenant=\"ant\"} 1",
                           "videonsa_tenant_calls_total{tenant=\"bee\"} 1",
                           "videonsa_tenant_calls_total{tenant=\"other\"} 2",
                           "videonsa_tenant_prompt_tokens_total{tenant=\"ant\"} 7",
                           "videonsa_tenant_output_tokens_total{tenant=\"ant\"} 3"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("\"cat\"")));
}

TEST_F(QuotasTest, ASinkChargesWhatTheRuntimeMade) {
  // A core of its own: a sink needs the whole.
  ServerOptions options = TestServer::Options();
  options.access.tenant = {.prompt_tokens_per_minute = 100, .output_tokens_per_minute = 100};
  TestServer server(FakeOptions(), options);
  ServerCore& core = const_cast<ServerCore&>(server.server().core());
  TenantQuotas* const quotas_ = &core.quotas;
  auto inner = std::make_shared<RecordingSink>();
  MeteredSink sink(core, "a", {}, inner);
  sink.OnAccepted(RequestId(), 0);
  sink.OnPrefill(PromptTokens{30, 100}, 40, absl::ZeroDuration());  // 90 were computed
  EXPECT_TRUE(quotas_->Enter("a", Ask()).ok());
  sink.OnChunk({.text = "x", .token_count = 100});
  EXPECT_EQ(QuotaOf(quotas_->Enter("a", Ask()).status()), "output_tokens_per_minute");
  sink.OnFinish(absl::OkStatus(), GenerateResult());
  EXPECT_EQ(inner->text(), "x");
  EXPECT_TRUE(inner->finished());
}

// ---- over the wire

TEST(QuotaOnTheWire, SaysWhichQuotaAndWhen) {
  AccessServer server(AccessServer::Tenants({"a", "b"}) + "tenants: {a: {requests-per-minute: 1}}");
  server->set_token(TokenOfTenant("a"));
  ASSERT_TRUE(server->Ask(TextQuestion("One?"), nullptr).ok());
  const grpc::Status refused = server->Ask(TextQuestion("Two?"), nullptr);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(refused), "QUOTA_EXCEEDED");
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(refused).violations(0).subject(),
            "requests_per_minute");
  const auto retry = DetailOf<google::rpc::RetryInfo>(refused).retry_delay();
  EXPECT_GT(retry.seconds(), 50);
  EXPECT_LE(retry.seconds(), 60);
  EXPECT_LT(refused.error_details().size(), 4096u);
  server->set_token(TokenOfTenant("b"));
  EXPECT_TRUE(server->Ask(TextQuestion("Three?"), nullptr).ok());
  const std::string text = server->metrics().Text();
  EXPECT_THAT(text, HasSubstr("videonsa_quota_refusals_total{quota=\"requests_per_minute\"} 1"));
  EXPECT_THAT(text, HasSubstr("videonsa_admission_rejections_total{reason=\"tenant_rate\"} 1"));
}

TEST(QuotaOnTheWire, QuestionsAtOnceEndWithTheirCalls) {
  AccessServer server(AccessServer::Tenants({"a", "b"}) + "tenants: {a: {questions: 1}}");
  server->set_token(TokenOfTenant("a"));
  auto context = std::make_unique<grpc::ClientContext>();
  server->Authorise(*context);
  v1::AskStreamRequest request;
  *request.mutable_question() = TextQuestion("silent");
  auto reader = server->questions().AskStream(context.get(), request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const grpc::Status refused = server->Ask(TextQuestion("Second?"), nullptr);
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(refused).violations(0).subject(), "questions");
  EXPECT_THAT(server->metrics().Text(),
              HasSubstr("videonsa_admission_rejections_total{reason=\"tenant_concurrency\"} 1"));
  context->TryCancel();
  while (reader->Read(&event)) {
  }
  reader->Finish();
  // The slot goes when the server has noticed.
  grpc::Status status;
  do {
    status = server->Ask(TextQuestion("Third?"), nullptr);
  } while (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST(QuotaOnTheWire, StoredBytesAreATenantsOwn) {
  AccessServer server(AccessServer::Tenants({"a", "b"}) + "tenants: {a: {clip-bytes: 10}}");
  v1::Clip clip;
  server->set_token(TokenOfTenant("a"));
  EXPECT_TRUE(server->Upload("12345678", &clip).ok());
  const grpc::Status refused = server->Upload("345", &clip);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(refused).violations(0).subject(), "clip_bytes");
  server->set_token(TokenOfTenant("b"));
  EXPECT_TRUE(server->Upload("12345678901234567890", &clip).ok());
}

TEST(QuotaOnTheWire, OutputTokensAreChargedThroughTheWholeServer) {
  AccessServer server(AccessServer::Tenants({"a"}) +
                      "tenants: {a: {output-tokens-per-minute: 10}}");
  server->set_token(TokenOfTenant("a"));
  ASSERT_TRUE(server->Ask(TextQuestion("One?"), nullptr).ok());  // 16 tokens
  const grpc::Status refused = server->Ask(TextQuestion("Two?"), nullptr);
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(refused).violations(0).subject(),
            "output_tokens_per_minute");
}

}  // namespace
}  // namespace videonsa
