// Who may call what: the access file, tokens, scopes, and tenants that must not meet.
#include <google/protobuf/descriptor.h>

#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "server/access/access_control.h"
#include "server/access/access_rules.h"
#include "server/method.h"
#include "tests/server/access_fixture.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAsker[] = "a-token-that-may-ask";
constexpr char kKeeper[] = "a-token-that-may-store";
constexpr char kBencher[] = "a-token-that-may-bench";
constexpr char kAdmin[] = "a-token-that-may-drain";

// ---- the file

TEST(AccessRules, ReadsTokensCertificatesAndTenants) {
  const std::string text = absl::StrCat(
      "tokens:\n", TokenLine(kAsker, "acme", "ask, bench"),
      TokenLine(kKeeper, "zoo", "clips", ", expires: 2030-01-02T03:04:05Z"),
      "certificates:\n  - name: camera.example\n    tenant: acme\n    scopes:\n      - clips\n",
      "tenants:\n  acme: {requests-per-minute: 60, clip-bytes: 2G}\n  zoo:\n");
  const absl::StatusOr<AccessRules> rules = AccessRules::Parse(text);
  ASSERT_TRUE(rules.ok()) << rules.status();
  const AccessRules::Grant* const grant = rules->FindToken(Sha256Of(kAsker));
  ASSERT_NE(grant, nullptr);
  EXPECT_EQ(grant->tenant, "acme");
  EXPECT_EQ(grant->scopes, kScopeAsk | kScopeBench);
  EXPECT_EQ(grant->expires, absl::InfiniteFuture());
  EXPECT_EQ(rules->FindToken(Sha256Of(kKeeper))->expires, absl::FromUnixSeconds(1893553445));
  EXPECT_EQ(rules->FindToken(Sha256Of("another")), nullptr);
  EXPECT_EQ(rules->certificates.at("camera.example").tenant, "acme");
  EXPECT_EQ(rules->tenants.at("acme").Over({}).requests_per_minute, 60);
  EXPECT_EQ(rules->tenants.at("acme").Over({}).clip_bytes, int64_t{2} << 30);
  EXPECT_EQ(rules->tenants.at("acme").Over({}).uploads, TenantLimits().uploads);
  EXPECT_EQ(rules->tenant_names, (std::vector<std::string>{"acme", "zoo"}));
}

TEST(AccessRules, RefusesWhatIsWrongAndSaysWhere) {
  const std::string digest = HexOf(Sha256Of(kAsker));
  const std::string good = TokenLine(kAsker, "acme", "ask");
  const std::pair<std::string, const char*> cases[] = {
      {"", "must be a map"},
      {"[]", "must be a map"},
      {"tokens: {}", "line 1: tokens: must be a list"},
      {"token: []", "did you mean tokens?"},
      {"tokens:\n  - x", "line 2: must be a map"},
      {"tokens:\n  - {sha256: abc, tenant: a, scopes: [ask]}", "64 hexadecimal digits"},
      {absl::StrCat("tokens:\n  - {sha256: ", digest, ", scopes: [ask]}"), "tenant is missing"},
      {absl::StrCat("tokens:\n  - {sha256: ", digest, ", tenant: a}"), "scopes is missing"},
      {"tokens:\n  - {tenant: a, scopes: [ask]}", "sha256 is missing"},
      {absl::StrCat("tokens:\n", TokenLine(kAsker, "a/b", "ask")), "tenant: must be"},
      {absl::StrCat("tokens:\n", TokenLine(kAsker, "''", "ask")), "tenant: must be"},
      {absl::StrCat("tokens:\n", TokenLine(kAsker, "acme", "aks")), "did you mean ask?"},
      {absl::StrCat("tokens:\n", TokenLine(kAsker, "acme", "")), "scopes: must be a list"},
      {absl::StrCat("tokens:\n", TokenLine(kAsker, "acme", "ask", ", expires: tomorrow")),
       "expires: must be a time"},
      {absl::StrCat("tokens:\n", TokenLine(kAsker, "acme", "ask", ", scope: [ask]")),
       "did you mean scopes?"},
      {absl::StrCat("tokens:\n", good, good), "line 3: sha256: stands twice"},
      {"certificates:\n  - {name: '', tenant: a, scopes: [ask]}", "name: must be"},
      {"tenants: {a: {request-per-minute: 1}}", "did you mean requests-per-minute?"},
      {"tenants: {a: 5}", "a: must be a map"},
      {"tenants: {a: {questions: -1}}", "is not 0 to"},
      {"tenants: {a: {questions: many}}", "is not 0 to"},
      {"tenants: {a: {}, a: {}}", "stands twice"},
      {"tokens: &x []\ntenants: *x", "anchors are not taken"},
      {"tokens: [", "line"},
      {std::string(3000, '['), "line"},
      {std::string("tokens: []\0", 11), "line"},
      {"--- {}\n--- {}", "more than one document"},
  };
  for (const auto& [text, message] : cases) {
    const absl::StatusOr<AccessRules> rules = AccessRules::Parse(text);
    EXPECT_EQ(rules.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(rules.status().message()), HasSubstr(message)) << text;
    EXPECT_THAT(std::string(rules.status().message()), Not(HasSubstr(digest))) << text;
  }
}

// ---- the table of methods

// Full names of all methods of the protocol's files, found on disk so that a new file counts.
std::set<std::string> MethodsOfTheProtocol() {
  std::set<std::string> names;
  const std::filesystem::path root = std::filesystem::path(VIDEONSA_SOURCE_DIR) / "proto";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root / "videonsa")) {
    if (entry.path().extension() != ".proto") continue;
    const std::string name = std::filesystem::relative(entry.path(), root).generic_string();
    const google::protobuf::FileDescriptor* const file =
        google::protobuf::DescriptorPool::generated_pool()->FindFileByName(name);
    if (file == nullptr) {
      ADD_FAILURE() << name << " is not part of the server";
      continue;
    }
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        names.insert(
            absl::StrCat(file->service(i)->full_name(), "/", file->service(i)->method(j)->name()));
      }
    }
  }
  return names;
}

TEST(MethodTable, HasEveryMethodOfTheProtocolAndNoOther) {
  std::set<std::string> table;
  for (int i = 0; i < kNumMethods; ++i) {
    const MethodInfo& info = InfoOf(static_cast<Method>(i));
    EXPECT_NE(info.any_of, 0) << info.name << " may be called by nobody";
    EXPECT_TRUE(table.insert(info.name).second) << info.name;
  }
  EXPECT_EQ(table, MethodsOfTheProtocol());
}

class EveryMethod : public ::testing::Test {
 protected:
  EveryMethod()
      : server_(absl::StrCat(
            "tokens:\n", TokenLine(kAsker, "acme", "ask"), TokenLine(kKeeper, "acme", "clips"),
            TokenLine(kBencher, "acme", "bench"), TokenLine(kAdmin, "ops", "admin"))),
        admin_(server_->ConnectAdmin()) {}

  grpc::Status Call(const std::string& method, const std::string& token) {
    const bool admin = absl::StrContains(method, ".admin.");
    return RawCall::Run(admin ? admin_ : server_->channel(), "/" + method, token);
  }

  AccessServer server_;
  const std::shared_ptr<grpc::Channel> admin_;
};

TEST_F(EveryMethod, IsRefusedWithoutAToken) {
  for (const std::string& method : MethodsOfTheProtocol()) {
    const grpc::Status status = Call(method, "");
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    EXPECT_EQ(ReasonOf(status), "TOKEN_MISSING") << method;
    const grpc::Status wrong = Call(method, "a-token-that-nobody-knows");
    EXPECT_EQ(wrong.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    EXPECT_EQ(ReasonOf(wrong), "TOKEN_INVALID") << method;
  }
  EXPECT_EQ(server_->server().core().state(), ServerState::kReady) << "a drain got through";
}

TEST_F(EveryMethod, AsksForItsScope) {
  for (const std::string& method : MethodsOfTheProtocol()) {
    const bool clips = absl::StrContains(method, "ClipService");
    const bool questions = absl::StrContains(method, "VideoQaService");
    const bool admin = absl::StrContains(method, "AdminService");
    const std::pair<const char*, bool> rights[] = {{kAsker, !clips && !admin},
                                                   {kKeeper, !questions && !admin},
                                                   {kBencher, !clips && !questions && !admin},
                                                   {kAdmin, !clips && !questions}};
    for (const auto& [token, may] : rights) {
      const grpc::Status status = Call(method, token);
      EXPECT_NE(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method << " " << token;
      EXPECT_EQ(status.error_code() == grpc::StatusCode::PERMISSION_DENIED, !may)
          << method << " " << token << ": " << status.error_message();
      if (!may) {
        EXPECT_EQ(ReasonOf(status), "SCOPE_MISSING") << method;
      }
    }
  }
}

TEST_F(EveryMethod, HealthAsksForNothing) {
  EXPECT_TRUE(RawCall::Run(server_->channel(), "/grpc.health.v1.Health/Check").ok());
  EXPECT_TRUE(RawCall::Run(admin_, "/grpc.health.v1.Health/Check").ok());
}

TEST_F(EveryMethod, BadHeadersAreRefused) {
  const char* const kMethod = "videonsa.v1.ServerService/GetModel";
  EXPECT_EQ(ReasonOf(Call(kMethod, "short")), "TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(Call(kMethod, std::string(600, 'x'))), "TOKEN_INVALID");
  for (const char* value : {"Basic YTpi", "Bearer", "a-token-that-may-ask"}) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", value);
    v1::GetModelResponse response;
    EXPECT_EQ(ReasonOf(server_->info().GetModel(&context, {}, &response)), "TOKEN_INVALID")
        << value;
  }
  grpc::ClientContext twice;
  twice.AddMetadata("authorization", absl::StrCat("Bearer ", kAsker));
  twice.AddMetadata("authorization", absl::StrCat("Bearer ", kKeeper));
  v1::GetModelResponse response;
  EXPECT_EQ(ReasonOf(server_->info().GetModel(&twice, {}, &response)), "TOKEN_INVALID");
  grpc::ClientContext lower;  // the scheme's case does not matter, RFC 7235
  lower.AddMetadata("authorization", absl::StrCat("bearer ", kAsker));
  EXPECT_TRUE(server_->info().GetModel(&lower, {}, &response).ok());
}

TEST_F(EveryMethod, RefusalsAreCounted) {
  Call("videonsa.v1.ServerService/GetModel", "");
  Call("videonsa.v1.ServerService/GetModel", "a-token-that-nobody-knows");
  Call("videonsa.v1.ClipService/GetClip", kAsker);
  const std::string text = server_->metrics().Text();
  for (const char* line : {"videonsa_auth_failures_total{reason=\"missing\"} 1",
                           "videonsa_auth_failures_total{reason=\"unknown\"} 1",
                           "videonsa_auth_failures_total{reason=\"scope\"} 1",
                           "videonsa_auth_failures_total{reason=\"expired\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("acme"))) << "no tenant in a label";
}

TEST_F(EveryMethod, EndlessAnswersNeedTheBenchScope) {
  v1::Question question = TextQuestion("Endless?");
  question.mutable_generation()->set_ignore_eos(true);
  server_->set_token(kAsker);
  const grpc::Status refused = server_->Ask(question, nullptr);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(refused).metadata().at("scope"), "bench");
  question.mutable_generation()->set_ignore_eos(false);
  EXPECT_TRUE(server_->Ask(question, nullptr).ok());
}

TEST(OpenServer, LetsEverybodyDoEverything) {
  TestServer server;
  v1::Question question = TextQuestion("Hello?");
  question.mutable_generation()->set_ignore_eos(true);
  EXPECT_TRUE(server.Ask(question, nullptr).ok());
  EXPECT_EQ(server.runtime().last_request().tenant, "default");
  server.set_token("whatever-it-is-nobody-looks");
  EXPECT_TRUE(server.Ask(question, nullptr).ok());
}

TEST(Reflection, IsOnlyThereWithoutAnAccessFileUnlessAsked) {
  ServerOptions options;
  EXPECT_TRUE(ServesReflection(options));
  options.access.file = "f";
  EXPECT_FALSE(ServesReflection(options));
  options.reflection = "true";
  EXPECT_TRUE(ServesReflection(options));
  options = ServerOptions();
  options.reflection = "false";
  EXPECT_FALSE(ServesReflection(options));
}

TEST(Reflection, IsReallyNotThere) {
  const char* const kMethod = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  TestServer open;
  EXPECT_TRUE(RawCall::Run(open.channel(), kMethod).ok());
  AccessServer closed(AccessServer::Tenants({"a"}));
  for (const auto& channel : {closed->channel(), closed->ConnectAdmin()}) {
    EXPECT_EQ(RawCall::Run(channel, kMethod, TokenOfTenant("a")).error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  }
  ServerOptions options = TestServer::Options();
  options.reflection = "false";
  TestServer off(FakeOptions(), options);
  EXPECT_EQ(RawCall::Run(off.channel(), kMethod).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

// ---- reload

TEST(Reload, TakesAGoodFileAndKeepsTheOldOneBesideABadOne) {
  AccessServer server(AccessServer::Tenants({"old"}));
  const auto may = [&server](const std::string& tenant) {
    server->set_token(TokenOfTenant(tenant));
    return server->Ask(TextQuestion("May I?"), nullptr).ok();
  };
  EXPECT_TRUE(may("old"));
  EXPECT_FALSE(may("new"));
  WriteText(server.path(), "tokens: [");
  server->server().ReloadFiles();
  server->server().ReloadFiles();  // is said and counted once
  EXPECT_TRUE(may("old"));
  std::filesystem::remove(server.path());
  server->server().ReloadFiles();
  EXPECT_TRUE(may("old"));
  WriteText(server.path(), AccessServer::Tenants({"new"}));
  server->server().ReloadFiles();
  EXPECT_FALSE(may("old"));
  EXPECT_TRUE(may("new"));
  const std::string text = server->metrics().Text();
  EXPECT_THAT(text,
              HasSubstr("videonsa_config_reloads_total{file=\"access\",outcome=\"refused\"} 2"));
  EXPECT_THAT(text, HasSubstr("videonsa_config_reloads_total{file=\"access\",outcome=\"ok\"} 1"));
}

TEST(Reload, AServerDoesNotStartWithABadFile) {
  TemporaryFolder folder;
  ServerOptions options = TestServer::Options();
  options.clips.dir = folder.path() + "/clips";
  options.access.file = folder.path() + "/access.yaml";
  MetricsRegistry metrics;
  EXPECT_EQ(GetErrorInfo(VideonsaServer::Start(options, Clock::Real(), metrics).status())->reason,
            "FILE_UNREADABLE");
  WriteText(options.access.file, "tokens: 1");
  EXPECT_EQ(GetErrorInfo(VideonsaServer::Start(options, Clock::Real(), metrics).status())->reason,
            "ACCESS_FILE_INVALID");
}

TEST(Expiry, EndsATokenWithoutAReload) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/access.yaml";
  WriteText(path, absl::StrCat("tokens:\n", TokenLine(kAsker, "acme", "ask",
                                                      ", expires: 1970-01-01T01:00:00Z")));
  FakeClock clock;
  MetricsRegistry metrics;
  const auto control = AccessControl::Create(path, {}, clock, metrics);
  ASSERT_TRUE(control.ok()) << control.status();
  const std::string header = absl::StrCat("Bearer ", kAsker);
  CallerProof proof;
  proof.authorization.push_back(header);
  EXPECT_TRUE((*control)->Authorise(proof, InfoOf(Method::kAsk)).ok());
  clock.Advance(absl::Hours(1));
  const auto late = (*control)->Authorise(proof, InfoOf(Method::kAsk));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(GetErrorInfo(late.status())->reason, "TOKEN_EXPIRED");
}

// ---- tenants

class TenantsTest : public ::testing::Test {
 protected:
  TenantsTest() : server_(AccessServer::Tenants({"a", "b"})) {}

  void As(const std::string& tenant) { server_->set_token(TokenOfTenant(tenant)); }
  v1::Clip UploadReady(const std::string& bytes) {
    v1::Clip clip;
    const grpc::Status status = server_->Upload(bytes, &clip);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return server_->WaitForClip(clip.name());
  }
  int NumClips() {
    grpc::ClientContext context;
    server_->Authorise(context);
    v1::ListClipsResponse response;
    EXPECT_TRUE(server_->clips().ListClips(&context, {}, &response).ok());
    return response.clips_size();
  }

  AccessServer server_;
};

TEST_F(TenantsTest, NeitherSeeNorUseNorDeleteEachOthersClips) {
  As("a");
  const v1::Clip clip = UploadReady("the same bytes");
  ASSERT_EQ(clip.state(), v1::Clip::STATE_READY);
  As("b");
  EXPECT_EQ(NumClips(), 0);
  v1::Question question = TextQuestion("What?");
  question.mutable_turns(0)->add_parts()->mutable_clip()->set_clip(clip.name());
  // What another tenant has is answered like what nobody ever had.
  v1::Question nothing = question;
  nothing.mutable_turns(0)->mutable_parts(1)->mutable_clip()->set_clip("clips/" +
                                                                       std::string(26, 'a'));
  const grpc::Status theirs = server_->Ask(question, nullptr);
  const grpc::Status nobodys = server_->Ask(nothing, nullptr);
  EXPECT_EQ(theirs.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(theirs.error_code(), nobodys.error_code());
  EXPECT_EQ(theirs.error_message(), nobodys.error_message());
  EXPECT_EQ(ReasonOf(theirs), ReasonOf(nobodys));
  grpc::ClientContext get_context, delete_context, watch_context;
  for (grpc::ClientContext* context : {&get_context, &delete_context, &watch_context}) {
    server_->Authorise(*context);
  }
  v1::GetClipRequest get;
  get.set_name(clip.name());
  v1::GetClipResponse got;
  EXPECT_EQ(server_->clips().GetClip(&get_context, get, &got).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::DeleteClipRequest remove;
  remove.set_name(clip.name());
  v1::DeleteClipResponse removed;
  EXPECT_EQ(server_->clips().DeleteClip(&delete_context, remove, &removed).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::WatchClipRequest watch;
  watch.set_name(clip.name());
  v1::WatchClipResponse change;
  auto reader = server_->clips().WatchClip(&watch_context, watch);
  EXPECT_FALSE(reader->Read(&change));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  As("a");
  EXPECT_EQ(NumClips(), 1);
  EXPECT_TRUE(server_->Ask(question, nullptr).ok());
}

TEST_F(TenantsTest, DoNotLearnWhatOthersHaveStored) {
  const std::string bytes = "the same bytes";
  As("a");
  UploadReady(bytes);
  const Sha256Digest digest = Sha256Of(bytes);
  v1::StartUploadRequest start;
  start.set_size_bytes(static_cast<int64_t>(bytes.size()));
  start.set_sha256(std::string(digest.begin(), digest.end()));
  const auto stored = [&] {
    grpc::ClientContext context;
    server_->Authorise(context);
    v1::StartUploadResponse response;
    EXPECT_TRUE(server_->clips().StartUpload(&context, start, &response).ok());
    return response;
  };
  EXPECT_TRUE(stored().already_stored());
  As("b");
  const v1::StartUploadResponse fresh = stored();
  EXPECT_FALSE(fresh.already_stored());
  // Nor may one touch the other's upload under way.
  As("a");
  grpc::ClientContext query_context, abort_context;
  server_->Authorise(query_context);
  server_->Authorise(abort_context);
  v1::QueryUploadRequest query;
  query.set_upload_id(fresh.upload_id());
  v1::QueryUploadResponse state;
  EXPECT_EQ(server_->clips().QueryUpload(&query_context, query, &state).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::AbortUploadRequest abort;
  abort.set_upload_id(fresh.upload_id());
  v1::AbortUploadResponse aborted;
  server_->clips().AbortUpload(&abort_context, abort, &aborted);
  As("b");
  EXPECT_EQ(NumClips(), 1) << "the abort reached another tenant's upload";
}

TEST_F(TenantsTest, RequestIdsOfTwoTenantsAreTwo) {
  for (const char* tenant : {"a", "b", "a", "b"}) {
    As(tenant);
    ASSERT_TRUE(server_->Ask(TextQuestion("Same?"), nullptr, "one-id").ok());
  }
  EXPECT_EQ(server_->runtime().submitted(), 2) << "one answer for each tenant, kept for repeats";
  // Another question under a used id is told only to its owner.
  As("b");
  EXPECT_FALSE(server_->Ask(TextQuestion("Other?"), nullptr, "one-id").ok());
  EXPECT_EQ(server_->runtime().last_request().tenant, "b");
}

}  // namespace
}  // namespace videonsa
