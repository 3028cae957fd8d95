// TLS and client certificates over real connections, and certificates that change under way.
#include <filesystem>

#include "client/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "tests/server/access_fixture.h"
#include "tests/support/test_certificates.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;
using testing::TestAuthority;
using testing::TestCertificate;

// What a client trusts and shows.
struct ClientSide {
  std::string authority;
  TestCertificate own = {};
};

class TlsTest : public ::testing::Test {
 protected:
  // Writes `pair` where the server looks for it.
  void Install(const TestCertificate& pair) {
    WriteText(folder_.path() + "/cert.pem", pair.cert);
    WriteText(folder_.path() + "/key.pem", pair.key);
  }

  ServerOptions Options() {
    ServerOptions options = TestServer::Options();
    options.access.tls.cert = folder_.path() + "/cert.pem";
    options.access.tls.key = folder_.path() + "/key.pem";
    return options;
  }

  static std::shared_ptr<grpc::Channel> Connect(TestServer& server, const ClientSide& client) {
    return Connect(server.server().port(), client);
  }
  static std::shared_ptr<grpc::Channel> Connect(int port, const ClientSide& client) {
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = client.authority;
    ssl.pem_cert_chain = client.own.cert;
    ssl.pem_private_key = client.own.key;
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    arguments.SetSslTargetNameOverride("videonsa.test");
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port), grpc::SslCredentials(ssl),
                                     arguments);
  }

  // Of a GetModel over `channel`.
  static grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel,
                           const std::string& token = "") {
    return RawCall::Run(channel, "/videonsa.v1.ServerService/GetModel", token);
  }
  static bool Works(TestServer& server, const ClientSide& client) {
    return Call(Connect(server, client)).ok();
  }

  TemporaryFolder folder_;
  TestAuthority authority_;
};

TEST_F(TlsTest, ServesWhoTrustsTheCertificateAndNobodyInPlaintext) {
  Install(authority_.Issue({"videonsa.test"}));
  TestServer server(FakeOptions(), Options());
  EXPECT_TRUE(Works(server, {authority_.cert()}));
  EXPECT_FALSE(Works(server, {TestAuthority().cert()}));
  EXPECT_EQ(Call(server.channel()).error_code(), grpc::StatusCode::UNAVAILABLE) << "plaintext";
}

TEST_F(TlsTest, NewCertificatesAreTakenWithoutCuttingConnections) {
  Install(authority_.Issue({"videonsa.test"}));
  TestServer server(FakeOptions(), Options());
  const auto old = Connect(server, {authority_.cert()});
  ASSERT_TRUE(Call(old).ok());
  TestAuthority next;
  Install(next.Issue({"videonsa.test"}));
  EXPECT_TRUE(Works(server, {authority_.cert()})) << "nothing was reloaded yet";
  server.server().ReloadFiles();
  EXPECT_TRUE(Call(old).ok()) << "an open connection must not feel it";
  EXPECT_TRUE(Works(server, {next.cert()}));
  EXPECT_FALSE(Works(server, {authority_.cert()}));
  EXPECT_THAT(server.metrics().Text(),
              HasSubstr("videonsa_config_reloads_total{file=\"tls\",outcome=\"ok\"} 1"));
}

TEST_F(TlsTest, HalfAChangeIsRefusedAndTheOldPairGoesOn) {
  const TestCertificate first = authority_.Issue({"videonsa.test"});
  const TestCertificate second = authority_.Issue({"videonsa.test"});
  Install(first);
  TestServer server(FakeOptions(), Options());
  for (const TestCertificate& bad :
       {TestCertificate{second.cert, first.key}, TestCertificate{first.cert, "not a key"},
        TestCertificate{"not a certificate", first.key},
        authority_.Issue({"videonsa.test"}, /*hours=*/-1)}) {
    Install(bad);
    server.server().ReloadFiles();
    EXPECT_TRUE(Works(server, {authority_.cert()}));
  }
  std::filesystem::remove(folder_.path() + "/key.pem");
  server.server().ReloadFiles();
  EXPECT_TRUE(Works(server, {authority_.cert()}));
  Install(second);
  server.server().ReloadFiles();
  EXPECT_TRUE(Works(server, {authority_.cert()}));
  const std::string text = server.metrics().Text();
  EXPECT_THAT(text, HasSubstr("videonsa_config_reloads_total{file=\"tls\",outcome=\"refused\"} 5"));
  EXPECT_THAT(text, HasSubstr("videonsa_config_reloads_total{file=\"tls\",outcome=\"ok\"} 1"));
}

TEST_F(TlsTest, AServerDoesNotStartWithFilesThatDoNotFit) {
  const TestCertificate pair = authority_.Issue({"videonsa.test"});
  ServerOptions options = Options();
  options.clips.dir = folder_.path() + "/clips";
  MetricsRegistry metrics;
  const auto reason = [&] {
    return GetErrorInfo(VideonsaServer::Start(options, Clock::Real(), metrics).status())->reason;
  };
  EXPECT_EQ(reason(), "FILE_UNREADABLE");
  Install({pair.cert, authority_.Issue({"videonsa.test"}).key});
  EXPECT_EQ(reason(), "TLS_FILE_INVALID");
  options.access.tls.key = "";
  EXPECT_EQ(reason(), "TLS_FILE_INVALID");
  options = Options();
  options.clips.dir = folder_.path() + "/clips";
  Install(pair);
  options.access.tls.client_ca = folder_.path() + "/key.pem";
  EXPECT_EQ(reason(), "TLS_FILE_INVALID");
}

TEST_F(TlsTest, OurClientShowsTokenAndCertificate) {
  Install(authority_.Issue({"localhost"}));
  TestAuthority clients;
  WriteText(folder_.path() + "/clients.pem", clients.cert());
  WriteText(folder_.path() + "/ca.pem", authority_.cert());
  const TestCertificate own = clients.Issue({"laptop"});
  WriteText(folder_.path() + "/own.pem", own.cert);
  WriteText(folder_.path() + "/own.key", own.key);
  ServerOptions options = Options();
  options.access.tls.client_ca = folder_.path() + "/clients.pem";
  AccessServer server(AccessServer::Tenants({"a"}), options);
  client::ChannelOptions channel;
  channel.address = absl::StrCat("localhost:", server->server().port());
  channel.ca_file = folder_.path() + "/ca.pem";
  client::CallOptions call;
  call.timeout = absl::Seconds(20);
  call.bearer_token = TokenOfTenant("a");
  const auto get_model = [&] {
    return (*client::VideoNsaClient::Create(channel))->GetModel(call).status();
  };
  EXPECT_FALSE(get_model().ok()) << "without a certificate";
  channel.cert_file = folder_.path() + "/own.pem";
  channel.key_file = folder_.path() + "/own.key";
  EXPECT_TRUE(get_model().ok()) << get_model();
  call.bearer_token = "";
  EXPECT_EQ(get_model().code(), absl::StatusCode::kUnauthenticated) << "a name nobody wrote down";
}

TEST_F(TlsTest, AnAdminAddressBeyondTheLoopbackNeedsTlsAndTokens) {
  Install(authority_.Issue({"videonsa.test"}));
  const std::string access = folder_.path() + "/access.yaml";
  WriteText(access, "tokens:\n" + TokenLine("a-token-of-the-operator", "ops", "admin") +
                        TokenLine("a-token-of-the-zoo", "zoo", "ask"));
  for (const bool tls : {false, true}) {
    for (const bool tokens : {false, true}) {
      ServerOptions options = tls ? Options() : TestServer::Options();
      options.clips.dir = folder_.path() + "/clips";
      options.admin_listen = "0.0.0.0:0";
      if (tokens) options.access.file = access;
      EXPECT_EQ(CheckAdminAddress(options).ok(), tls && tokens);
      if (tls && tokens) continue;
      MetricsRegistry metrics;
      const auto started = VideonsaServer::Start(options, Clock::Real(), metrics);
      ASSERT_FALSE(started.ok());
      EXPECT_EQ(GetErrorInfo(started.status())->reason, "OPTION_INVALID");
    }
  }
  ServerOptions options = Options();
  options.admin_listen = "0.0.0.0:0";
  options.access.file = access;
  TestServer server(FakeOptions(), options);
  const auto drain = [&](const std::shared_ptr<grpc::Channel>& channel, const std::string& token) {
    return RawCall::Run(channel, "/videonsa.admin.v1.AdminService/SetLogLevel", token);
  };
  EXPECT_EQ(drain(server.ConnectAdmin(), "a-token-of-the-operator").error_code(),
            grpc::StatusCode::UNAVAILABLE)
      << "plaintext";
  const int port = server.server().admin_port();
  const auto admin = Connect(port, {authority_.cert()});
  EXPECT_EQ(ReasonOf(drain(admin, "")), "TOKEN_MISSING");
  EXPECT_EQ(ReasonOf(drain(admin, "a-token-of-the-zoo")), "SCOPE_MISSING");
  EXPECT_EQ(ReasonOf(drain(admin, "a-token-of-the-operator")), "FIELD_INVALID") << "no level";
  // A change of the files reaches both listeners.
  TestAuthority next;
  Install(next.Issue({"videonsa.test"}));
  server.server().ReloadFiles();
  for (const int each : {port, server.server().port()}) {
    EXPECT_EQ(ReasonOf(drain(Connect(each, {authority_.cert()}), "")), "") << "the old certificate";
    EXPECT_NE(drain(Connect(each, {next.cert()}), "").error_code(), grpc::StatusCode::UNAVAILABLE);
  }
}

TEST_F(TlsTest, ClientCertificatesNameTheTenant) {
  Install(authority_.Issue({"videonsa.test"}));
  TestAuthority clients;
  WriteText(folder_.path() + "/clients.pem", clients.cert());
  ServerOptions options = Options();
  options.access.tls.client_ca = folder_.path() + "/clients.pem";
  AccessServer server(
      "certificates:\n"
      "  - {name: camera.acme, tenant: acme, scopes: [ask]}\n"
      "  - {name: store.acme, tenant: acme, scopes: [clips]}\n"
      "tokens:\n" +
          TokenLine("a-token-of-the-zoo", "zoo", "ask"),
      options);
  const auto ask = [&server](const std::shared_ptr<grpc::Channel>& channel,
                             const std::string& token = "") {
    grpc::ClientContext context;
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    v1::AskRequest request;
    *request.mutable_question() = TextQuestion("Who am I?");
    v1::AskResponse response;
    return v1::VideoQaService::NewStub(channel)->Ask(&context, request, &response);
  };
  EXPECT_FALSE(ask(Connect(*server, {authority_.cert()})).ok()) << "shows no certificate";
  EXPECT_FALSE(
      ask(Connect(*server, {authority_.cert(), TestAuthority().Issue({"camera.acme"})})).ok())
      << "of an authority that the server does not know";
  const auto camera =
      Connect(*server, {authority_.cert(), clients.Issue({"other.name", "camera.acme"})});
  EXPECT_TRUE(ask(camera).ok());
  EXPECT_EQ(server->runtime().last_request().tenant, "acme");
  EXPECT_TRUE(ask(camera, "a-token-of-the-zoo").ok());
  EXPECT_EQ(server->runtime().last_request().tenant, "zoo") << "a token counts first";
  EXPECT_EQ(ReasonOf(ask(camera, "a-token-of-nobody")), "TOKEN_INVALID")
      << "a bad token is not made up for by a good certificate";
  EXPECT_EQ(ReasonOf(ask(Connect(*server, {authority_.cert(), clients.Issue({"store.acme"})}))),
            "SCOPE_MISSING");
  EXPECT_EQ(ReasonOf(ask(Connect(*server, {authority_.cert(), clients.Issue({"unknown"})}))),
            "TOKEN_INVALID");
}

}  // namespace
}  // namespace videonsa
