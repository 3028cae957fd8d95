#include "server/url_fetch/url_fetcher.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "tests/server/http_stub.h"

namespace videonsa {
namespace {

std::string ReasonOf(const absl::Status& status) {
  if (status.ok()) return "OK";
  const auto info = GetErrorInfo(status);
  return info ? info->reason : status.ToString();
}

UrlRules PublicRules() {
  UrlRules rules;
  rules.hosts = {"media.example.org", "*.cdn.example.org", "localhost"};
  return rules;
}

// Rules under which the stub may be reached.
UrlRules StubRules(int port) {
  UrlRules rules = PublicRules();
  rules.ports = {port};
  rules.allow_http = true;
  rules.networks = {IpNetwork::Parse("127.0.0.0/8").value(), IpNetwork::Parse("::1").value()};
  rules.max_redirects = 3;
  return rules;
}

FetchLimits SmallLimits() {
  FetchLimits limits;
  limits.max_bytes = 1000;
  limits.total = absl::Seconds(20);
  limits.connect = absl::Seconds(5);
  limits.rate_window = absl::Seconds(1);
  return limits;
}

class Memory : public FetchSink {
 public:
  absl::Status OnSize(int64_t size) override {
    size_ = size;
    return absl::OkStatus();
  }
  absl::Status OnBytes(absl::string_view bytes) override {
    bytes_.append(bytes.data(), bytes.size());
    return bytes_.size() > stop_at ? absl::DataLossError("disk") : absl::OkStatus();
  }
  size_t stop_at = SIZE_MAX;
  int64_t size_ = -2;
  std::string bytes_;
};

struct Fetched {
  absl::Status status;
  Memory memory;
};

Fetched FetchFrom(const HttpStub& stub, const std::string& url,
                  FetchLimits limits = SmallLimits()) {
  const UrlFetcher fetcher(StubRules(stub.port()), limits);
  Fetched out;
  out.status = fetcher.Fetch(url, out.memory, nullptr);
  return out;
}

class RefusedUrlTest : public testing::TestWithParam<const char*> {};

TEST_P(RefusedUrlTest, IsRefusedWithTheOneText) {
  const UrlGuard guard(PublicRules());
  const absl::Status status = guard.CheckUrl(GetParam()).status();
  EXPECT_EQ(status, UrlGuard::Refusal()) << GetParam();
  // And with rules that let more through than a server should.
  UrlRules open = PublicRules();
  open.allow_http = true;
  open.ports = {80, 443};
  EXPECT_FALSE(UrlGuard(open).CheckUrl(GetParam()).ok()) << GetParam();
}

INSTANTIATE_TEST_SUITE_P(
    Forms, RefusedUrlTest,
    testing::Values(
        // schemes
        "", "media.example.org/a.mp4", "//media.example.org/a.mp4", "file:///etc/passwd",
        "ftp://media.example.org/a", "gopher://media.example.org/", "dict://media.example.org/",
        "data:text/plain,hello", "javascript:alert(1)", "unix:///var/run/docker.sock",
        "HTTPSS://media.example.org/",
        // hosts that are not on the list
        "https://example.org/a.mp4", "https://media.example.org.evil.net/a.mp4",
        "https://evilmedia.example.org/", "https://cdn.example.org/", "https://.cdn.example.org/",
        "https://xcdn.example.org/", "https://media.example.org./a.mp4",
        "https://media.example.org../a.mp4",
        // credentials and what parsers have read as such
        "https://user@media.example.org/", "https://user:secret@media.example.org/",
        "https://@media.example.org/", "https://media.example.org@evil.net/",
        "https://media.example.org\\@evil.net/", "https://evil.net\\@media.example.org/",
        "https://evil.net#@media.example.org/", "https://evil.net?@media.example.org/",
        // characters
        "https://media.example.org/a b", "https://media.example.org/\r\nHost: evil.net",
        "https://media.example.org/\ta", " https://media.example.org/",
        "https://media.example.org\u3002evil.net/", "https://m\u00e9dia.example.org/",
        "https://media.example.org%2eevil.net/", "https://media%2eexample.org/",
        "https://media.example.org/<script>",
        // ports
        "https://media.example.org:22/", "https://media.example.org:8443/",
        "https://media.example.org:0/", "https://media.example.org:65536/",
        "https://media.example.org:-1/", "https://media.example.org:443443/",
        // addresses in every spelling
        "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
        "https://0177.0.0.1/", "https://0x7f.0.0.1/", "https://0/", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[fe80::1%25eth0]/",
        "https://169.254.169.254/latest/meta-data/", "https://[fd00:ec2::254]/",
        "https://metadata.google.internal/", "https://10.0.0.1/", "https://8.8.8.8/",
        "https://[2001:4860:4860::8888]/"));

// The caller never hears which it was; the operator counts them apart.
TEST(UrlGuardTest, SaysTheCauseToWhoAsks) {
  const UrlGuard guard(PublicRules());
  const std::pair<const char*, UrlRefusal> cases[] = {
      {"", UrlRefusal::kForm},
      {"https://media.example.org/a b", UrlRefusal::kForm},
      {"https://user@media.example.org/", UrlRefusal::kForm},
      {"https://media%2eexample.org/", UrlRefusal::kForm},
      {"http://media.example.org/", UrlRefusal::kScheme},
      {"ftp://media.example.org/a", UrlRefusal::kScheme},
      {"https://example.org/a.mp4", UrlRefusal::kHost},
      {"https://127.0.0.1/", UrlRefusal::kHost},
      {"https://[::1]/", UrlRefusal::kHost},
      {"https://media.example.org:22/", UrlRefusal::kPort},
  };
  for (const auto& [url, cause] : cases) {
    UrlRefusal why = UrlRefusal::kRedirect;
    EXPECT_EQ(guard.CheckUrl(url, &why).status(), UrlGuard::Refusal()) << url;
    EXPECT_EQ(why, cause) << url;
  }
}

TEST(UrlGuardTest, AllowsWhatIsListed) {
  const UrlGuard guard(PublicRules());
  for (const char* url : {"https://media.example.org/a.mp4", "HTTPS://MEDIA.EXAMPLE.ORG/a.mp4",
                          "https://media.example.org:443/a.mp4?x=1&y=@home#t=3",
                          "https://a.cdn.example.org/", "https://a.b.cdn.example.org/x/../y"}) {
    EXPECT_TRUE(guard.CheckUrl(url).ok()) << url;
  }
  EXPECT_FALSE(guard.CheckUrl("https://media.example.org/" + std::string(2048, 'a')).ok());
  EXPECT_FALSE(UrlGuard(UrlRules{}).CheckUrl("https://media.example.org/").ok());
}

bool Connects(const UrlGuard& guard, const std::string& address) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  if (inet_pton(AF_INET, address.c_str(), &v4.sin_addr) == 1) {
    return guard.CheckAddress(reinterpret_cast<const sockaddr&>(v4));
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  EXPECT_EQ(inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr), 1) << address;
  return guard.CheckAddress(reinterpret_cast<const sockaddr&>(v6));
}

TEST(UrlGuardTest, AddressesThatAreNotGlobalAreRefused) {
  const UrlGuard guard(PublicRules());
  for (const char* address : {"0.0.0.0",
                              "0.1.2.3",
                              "10.0.0.1",
                              "100.64.0.1",
                              "127.0.0.1",
                              "127.255.255.254",
                              "169.254.169.254",
                              "172.16.0.1",
                              "172.31.255.255",
                              "192.0.0.8",
                              "192.0.2.1",
                              "192.88.99.1",
                              "192.168.1.1",
                              "198.18.0.1",
                              "198.19.255.255",
                              "198.51.100.7",
                              "203.0.113.9",
                              "224.0.0.1",
                              "239.255.255.255",
                              "240.0.0.1",
                              "255.255.255.255",
                              "::",
                              "::1",
                              "::ffff:127.0.0.1",
                              "::ffff:10.0.0.1",
                              "::ffff:169.254.169.254",
                              "64:ff9b::7f00:1",
                              "100::1",
                              "2001::1",
                              "2001:db8::1",
                              "2002:7f00:1::1",
                              "3fff::1",
                              "fc00::1",
                              "fd00:ec2::254",
                              "fe80::1",
                              "ff02::1"}) {
    EXPECT_FALSE(Connects(guard, address)) << address;
  }
  for (const char* address :
       {"1.1.1.1", "8.8.8.8", "11.0.0.1", "100.63.255.255", "100.128.0.1", "172.15.0.1",
        "172.32.0.1", "192.0.1.1", "198.17.0.1", "198.20.0.1", "223.255.255.254", "::ffff:8.8.8.8",
        "2001:4860:4860::8888", "2a00::1", "2606:4700::1111"}) {
    EXPECT_TRUE(Connects(guard, address)) << address;
  }
}

TEST(UrlGuardTest, NetworksMayBeAllowed) {
  UrlRules rules = PublicRules();
  rules.networks = {IpNetwork::Parse("10.1.0.0/16").value(), IpNetwork::Parse("fd00::/8").value()};
  const UrlGuard guard(rules);
  EXPECT_TRUE(Connects(guard, "10.1.2.3"));
  EXPECT_TRUE(Connects(guard, "::ffff:10.1.2.3"));
  EXPECT_TRUE(Connects(guard, "fd12::1"));
  EXPECT_FALSE(Connects(guard, "10.2.0.1"));
  EXPECT_FALSE(Connects(guard, "fe80::1"));
  for (const char* text : {"", "10.0.0.0/33", "10.0.0.0/-1", "fd00::/129", "10.0.0", "x/8", "/8"}) {
    EXPECT_FALSE(IpNetwork::Parse(text).ok()) << text;
  }
}

TEST(UrlFetcherTest, FetchesWhatIsAllowed) {
  std::string head;
  const HttpStub stub([&](const std::string& request, int connection) {
    head = request;
    HttpStub::Send(connection, HttpStub::Ok("0123456789"));
  });
  const Fetched fetched = FetchFrom(stub, stub.Url("/clip.mp4?x=1"));
  EXPECT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.memory.bytes_, "0123456789");
  EXPECT_EQ(fetched.memory.size_, 10);
  EXPECT_TRUE(absl::StartsWith(head, "GET /clip.mp4?x=1 HTTP/1.1\r\n")) << head;
  EXPECT_TRUE(absl::StrContains(head, "Accept-Encoding: identity\r\n"));
  for (const char* header : {"Authorization", "Cookie", "Referer", "Proxy"}) {
    EXPECT_FALSE(absl::StrContains(head, header)) << head;
  }
}

TEST(UrlFetcherTest, ANameThatLeadsInsideIsRefusedAtTheSocket) {
  const HttpStub stub([](const std::string&, int connection) {
    HttpStub::Send(connection, HttpStub::Ok("secret"));
  });
  UrlRules rules = StubRules(stub.port());
  rules.networks.clear();  // "localhost" is listed, but it resolves to an address inside
  const UrlFetcher fetcher(rules, SmallLimits());
  Memory memory;
  UrlRefusal why = UrlRefusal::kForm;
  EXPECT_EQ(fetcher.Fetch(stub.Url("/"), memory, nullptr, &why), UrlGuard::Refusal());
  EXPECT_EQ(why, UrlRefusal::kAddress);
  EXPECT_EQ(stub.connections(), 0);
  EXPECT_EQ(memory.bytes_, "");
}

TEST(UrlFetcherTest, ProxiesOfTheEnvironmentAreNotUsed) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
  const HttpStub stub([](const std::string&, int connection) {
    HttpStub::Send(connection, HttpStub::Ok("direct"));
  });
  EXPECT_EQ(FetchFrom(stub, stub.Url("/")).memory.bytes_, "direct");
  unsetenv("http_proxy");
  unsetenv("ALL_PROXY");
}

class RedirectTest : public testing::TestWithParam<const char*> {};

TEST_P(RedirectTest, LeadsNowhereElse) {
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, HttpStub::Redirect(GetParam()));
  });
  const Fetched fetched = FetchFrom(stub, stub.Url("/"));
  EXPECT_EQ(fetched.status, UrlGuard::Refusal()) << GetParam();
  EXPECT_EQ(stub.connections(), 1);
  EXPECT_EQ(fetched.memory.bytes_, "");
}

INSTANTIATE_TEST_SUITE_P(Targets, RedirectTest,
                         testing::Values("http://169.254.169.254/latest/meta-data/",
                                         "http://evil.net/", "http://localhost:1/",
                                         "http://user:x@localhost/", "file:///etc/passwd",
                                         "gopher://localhost/", "http://127.0.0.1/",
                                         "http://[::1]/", "//evil.net/"));

TEST(UrlFetcherTest, RedirectsWithinTheRulesAreFollowedAFewTimes) {
  const HttpStub* self = nullptr;
  const HttpStub stub([&](const std::string& head, int connection) {
    const int left = head[5] - '0';
    HttpStub::Send(connection, left == 0
                                   ? HttpStub::Ok("there")
                                   : HttpStub::Redirect(self->Url("/" + std::to_string(left - 1))));
  });
  self = &stub;
  EXPECT_EQ(FetchFrom(stub, stub.Url("/3")).memory.bytes_, "there");
  EXPECT_EQ(FetchFrom(stub, stub.Url("/4")).status, UrlGuard::Refusal());
  UrlRules none = StubRules(stub.port());
  none.max_redirects = 0;
  Memory memory;
  EXPECT_EQ(UrlFetcher(none, SmallLimits()).Fetch(stub.Url("/1"), memory, nullptr),
            UrlGuard::Refusal());
}

TEST(UrlFetcherTest, LoopsEnd) {
  const HttpStub* self = nullptr;
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, HttpStub::Redirect(self->Url("/again")));
  });
  self = &stub;
  EXPECT_EQ(FetchFrom(stub, stub.Url("/")).status, UrlGuard::Refusal());
  EXPECT_EQ(stub.connections(), 4);
}

TEST(UrlFetcherTest, SizesAreLimitedByWhatComes) {
  const std::string body(2000, 'x');
  const HttpStub stub([&](const std::string& head, int connection) {
    if (absl::StrContains(head, "/honest")) return HttpStub::Send(connection, HttpStub::Ok(body));
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\n\r\n" + body);  // says nothing
  });
  EXPECT_EQ(ReasonOf(FetchFrom(stub, stub.Url("/honest")).status), "MEDIA_TOO_LARGE");
  const Fetched silent = FetchFrom(stub, stub.Url("/silent"));
  EXPECT_EQ(ReasonOf(silent.status), "MEDIA_TOO_LARGE");
  EXPECT_LE(silent.memory.bytes_.size(), 1000u);
}

TEST(UrlFetcherTest, EncodedContentIsRefused) {
  const HttpStub stub([](const std::string&, int connection) {
    HttpStub::Send(connection, HttpStub::Ok("\x1f\x8b", "Content-Encoding: gzip\r\n"));
  });
  EXPECT_EQ(ReasonOf(FetchFrom(stub, stub.Url("/")).status), "FETCH_FAILED");
}

TEST(UrlFetcherTest, ErrorStatusesAreSaid) {
  const HttpStub stub([](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope");
  });
  const absl::Status status = FetchFrom(stub, stub.Url("/")).status;
  EXPECT_EQ(ReasonOf(status), "FETCH_FAILED");
  EXPECT_TRUE(absl::StrContains(status.message(), "404")) << status;
}

TEST(UrlFetcherTest, BrokenDownloadsAreTakenUpWhereTheyEnded) {
  const std::string body = "0123456789";
  const HttpStub stub([&](const std::string& head, int connection) {
    const size_t range = head.find("Range: bytes=");
    if (range == std::string::npos) {
      return HttpStub::Send(connection,
                            "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 10\r\n\r\n0123");
    }
    EXPECT_TRUE(absl::StrContains(head, "If-Range: \"v1\"\r\n")) << head;
    const int begin = std::stoi(head.substr(range + 13));
    // Two more bytes, then the rest.
    const std::string part = begin == 4 ? body.substr(4, 2) : body.substr(begin);
    HttpStub::Send(
        connection,
        absl::StrCat("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes ", begin,
                     "-9/10\r\nContent-Length: ", 10 - begin, "\r\n\r\n", part));
  });
  const Fetched fetched = FetchFrom(stub, stub.Url("/"));
  EXPECT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.memory.bytes_, body);
  EXPECT_EQ(stub.connections(), 3);
}

TEST(UrlFetcherTest, ChangedContentIsNotMixed) {
  const HttpStub stub([&](const std::string& head, int connection) {
    HttpStub::Send(connection, absl::StrContains(head, "Range: bytes=")
                                   ? HttpStub::Ok("abcdefghij", "ETag: \"v2\"\r\n")
                                   : "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: "
                                     "10\r\n\r\n0123");
  });
  const Fetched fetched = FetchFrom(stub, stub.Url("/"));
  EXPECT_EQ(ReasonOf(fetched.status), "FETCH_FAILED");
  EXPECT_EQ(fetched.memory.bytes_, "0123");
}

TEST(UrlFetcherTest, ADownloadThatCannotBeProvedTheSameIsNotTakenUp) {
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123");
  });
  EXPECT_EQ(ReasonOf(FetchFrom(stub, stub.Url("/")).status), "FETCH_FAILED");
  EXPECT_EQ(stub.connections(), 1);
}

TEST(UrlFetcherTest, SlowAnswersEnd) {
  std::atomic<bool> over{false};
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
    for (int i = 0; i < 900 && !over; ++i) {
      HttpStub::Send(connection, "x");
      usleep(10'000);
    }
  });
  const Fetched fetched = FetchFrom(stub, stub.Url("/"));
  over = true;
  EXPECT_EQ(ReasonOf(fetched.status), "FETCH_TOO_SLOW");
  EXPECT_LT(fetched.memory.bytes_.size(), 900u);
}

TEST(UrlFetcherTest, CancelEndsADownload) {
  std::atomic<bool> over{false};
  std::atomic<bool> cancelled{false};
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nx");
    cancelled = true;
    while (!over) usleep(1000);
  });
  const UrlFetcher fetcher(StubRules(stub.port()), SmallLimits());
  Memory memory;
  const absl::Status status =
      fetcher.Fetch(stub.Url("/"), memory, [&] { return cancelled.load(); });
  over = true;
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

TEST(UrlFetcherTest, TheSinksErrorIsTheResult) {
  const HttpStub stub([](const std::string&, int connection) {
    HttpStub::Send(connection, HttpStub::Ok("0123456789"));
  });
  const UrlFetcher fetcher(StubRules(stub.port()), SmallLimits());
  Memory memory;
  memory.stop_at = 3;
  EXPECT_EQ(fetcher.Fetch(stub.Url("/"), memory, nullptr), absl::DataLossError("disk"));
}

TEST(UrlFetcherTest, NobodyThereIsSaid) {
  int port;
  {
    const HttpStub gone([](const std::string&, int) {});
    port = gone.port();
  }
  const UrlFetcher fetcher(StubRules(port), SmallLimits());
  Memory memory;
  EXPECT_EQ(
      ReasonOf(fetcher.Fetch("http://localhost:" + std::to_string(port) + "/", memory, nullptr)),
      "FETCH_FAILED");
}

}  // namespace
}  // namespace videonsa
