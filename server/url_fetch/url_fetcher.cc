#include "server/url_fetch/url_fetcher.h"

#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr long kOk = 200;
constexpr long kPartial = 206;

absl::Status FetchFailed(absl::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "FETCH_FAILED", .retry_after = absl::Seconds(10)},
                   absl::StrCat("the url could not be fetched: ", why));
}

// What headers said of one response.
struct Answer {
  std::string validator;  // strong ETag or Last-Modified
  std::string encoding;
  int64_t range_begin = -1;
  int64_t whole_size = -1;  // of Content-Range
};

void ReadRange(absl::string_view value, Answer& answer) {  // "bytes 5-9/10"
  if (!absl::ConsumePrefix(&value, "bytes ")) return;
  const size_t dash = value.find('-'), slash = value.find('/');
  if (dash == absl::string_view::npos || slash == absl::string_view::npos) return;
  if (!absl::SimpleAtoi(value.substr(0, dash), &answer.range_begin)) answer.range_begin = -1;
  if (!absl::SimpleAtoi(value.substr(slash + 1), &answer.whole_size)) answer.whole_size = -1;
}

// One download, over several connections if it breaks off.
class Download {
 public:
  Download(const UrlGuard& guard, const FetchLimits& limits, FetchSink& sink,
           const std::function<bool()>& cancelled)
      : guard_(guard),
        limits_(limits),
        sink_(sink),
        cancelled_(cancelled),
        end_(Clock::Real().Monotonic() + limits.total) {}

  absl::Status Run(CheckedUrl url);
  bool address_refused() const { return refused_; }

 private:
  // What a connection came to: an end, a redirect, or a break that another may mend.
  struct Outcome {
    absl::Status status;
    std::optional<CheckedUrl> redirect;
    bool may_resume = false;
  };
  Outcome Connect(const CheckedUrl& url);
  void Configure(CURL* curl, const CheckedUrl& url, curl_slist** headers);
  Outcome Judge(CURL* curl, CURLcode code);
  absl::Status Begin();
  size_t Take(absl::string_view bytes);

  static size_t OnHeader(char* data, size_t size, size_t count, void* self);
  static size_t OnBody(char* data, size_t size, size_t count, void* self);
  static int OnProgress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t);
  static curl_socket_t OnSocket(void* self, curlsocktype purpose, curl_sockaddr* address);

  const UrlGuard& guard_;
  const FetchLimits& limits_;
  FetchSink& sink_;
  const std::function<bool()>& cancelled_;
  const absl::Duration end_;
  CURL* curl_ = nullptr;  // of the connection in hand
  Answer answer_;         // of the response in hand
  absl::Status stopped_;  // why a callback ended the connection
  bool begun_ = false;    // the response in hand was accepted
  bool sized_ = false;    // the sink knows the size
  bool refused_ = false;  // an address was refused
  int64_t received_ = 0;
  std::string validator_;  // of the first response
};

size_t Download::OnHeader(char* data, size_t size, size_t count, void* self) {
  auto& download = *static_cast<Download*>(self);
  const absl::string_view line(data, size * count);
  if (absl::StartsWith(line, "HTTP/")) download.answer_ = {};
  const size_t colon = line.find(':');
  if (colon == absl::string_view::npos) return size * count;
  const absl::string_view name = line.substr(0, colon);
  const absl::string_view value = absl::StripAsciiWhitespace(line.substr(colon + 1));
  Answer& answer = download.answer_;
  if (absl::EqualsIgnoreCase(name, "etag") && !absl::StartsWith(value, "W/")) {
    answer.validator = std::string(value);
  } else if (absl::EqualsIgnoreCase(name, "last-modified") && answer.validator.empty()) {
    answer.validator = std::string(value);
  } else if (absl::EqualsIgnoreCase(name, "content-encoding")) {
    answer.encoding = std::string(value);
  } else if (absl::EqualsIgnoreCase(name, "content-range")) {
    ReadRange(value, answer);
  }
  return size * count;
}

// Accepts or refuses the response in hand before its first byte.
absl::Status Download::Begin() {
  long code = 0;
  curl_off_t length = -1;
  curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &code);
  curl_easy_getinfo(curl_, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (code != kOk && code != kPartial) return FetchFailed(absl::StrCat("HTTP status ", code));
  if (!answer_.encoding.empty() && !absl::EqualsIgnoreCase(answer_.encoding, "identity")) {
    return FetchFailed("the content is encoded");
  }
  const bool continues = code == kPartial && answer_.range_begin == received_;
  if (received_ > 0 ? !continues : code != kOk) return FetchFailed("it cannot be taken up again");
  const int64_t whole = received_ > 0 ? answer_.whole_size : static_cast<int64_t>(length);
  if (whole > limits_.max_bytes) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     ErrorInfo{.reason = "MEDIA_TOO_LARGE",
                               .metadata = {{"bytes", absl::StrCat(whole)},
                                            {"limit", absl::StrCat(limits_.max_bytes)}}},
                     absl::StrCat("the url has ", whole, " bytes, limit ", limits_.max_bytes));
  }
  if (!sized_) {
    VNSA_RETURN_IF_ERROR(sink_.OnSize(whole));
    sized_ = true;
    validator_ = answer_.validator;
  }
  begun_ = true;
  return absl::OkStatus();
}

size_t Download::Take(absl::string_view bytes) {
  long code = 0;
  curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &code);
  if (code >= 300 && code < 400) return bytes.size();  // the text of a redirect
  if (!begun_) stopped_ = Begin();
  const auto size = static_cast<int64_t>(bytes.size());
  if (stopped_.ok() && received_ + size > limits_.max_bytes) {
    stopped_ = MakeError(absl::StatusCode::kInvalidArgument,
                         ErrorInfo{.reason = "MEDIA_TOO_LARGE",
                                   .metadata = {{"limit", absl::StrCat(limits_.max_bytes)}}},
                         absl::StrCat("the url has more than ", limits_.max_bytes, " bytes"));
  }
  if (stopped_.ok()) stopped_ = sink_.OnBytes(bytes);
  if (!stopped_.ok()) return 0;
  received_ += size;
  return bytes.size();
}

size_t Download::OnBody(char* data, size_t size, size_t count, void* self) {
  return static_cast<Download*>(self)->Take({data, size * count});
}

int Download::OnProgress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& download = *static_cast<Download*>(self);
  if (!download.cancelled_ || !download.cancelled_()) return 0;
  download.stopped_ =
      MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the request was cancelled");
  return 1;
}

curl_socket_t Download::OnSocket(void* self, curlsocktype purpose, curl_sockaddr* address) {
  auto& download = *static_cast<Download*>(self);
  if (purpose != CURLSOCKTYPE_IPCXN || !download.guard_.CheckAddress(address->addr)) {
    download.refused_ = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void Download::Configure(CURL* curl, const CheckedUrl& url, curl_slist** headers) {
  const auto milliseconds = [](absl::Duration d) {
    return std::max<long>(1, static_cast<long>(absl::ToInt64Milliseconds(d)));
  };
  curl_easy_setopt(curl, CURLOPT_CURLU, url.handle());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, guard_.allow_http() ? "http,https" : "https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "videonsa");
  curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(limits_.max_bytes));
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(limits_.connect));
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, milliseconds(end_ - Clock::Real().Monotonic()));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(limits_.min_rate));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                   static_cast<long>(absl::ToInt64Seconds(limits_.rate_window)));
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, &Download::OnSocket);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, this);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &Download::OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, this);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Download::OnBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &Download::OnProgress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, this);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  *headers = curl_slist_append(*headers, "Accept-Encoding: identity");
  if (received_ > 0) {
    const std::string range = absl::StrCat("Range: bytes=", received_, "-");
    const std::string same = absl::StrCat("If-Range: ", validator_);
    *headers = curl_slist_append(*headers, range.c_str());
    *headers = curl_slist_append(*headers, same.c_str());
  }
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *headers);
}

Download::Outcome Download::Connect(const CheckedUrl& url) {
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (curl == nullptr) return {FetchFailed("out of memory"), std::nullopt, false};
  curl_ = curl.get();
  answer_ = {};
  stopped_ = absl::OkStatus();
  begun_ = false;
  curl_slist* headers = nullptr;
  Configure(curl.get(), url, &headers);
  const CURLcode code = curl_easy_perform(curl.get());
  Outcome outcome = Judge(curl.get(), code);
  curl_slist_free_all(headers);
  curl_ = nullptr;
  return outcome;
}

Download::Outcome Download::Judge(CURL* curl, CURLcode code) {
  if (refused_) return {UrlGuard::Refusal(), std::nullopt, false};
  if (!stopped_.ok()) return {stopped_, std::nullopt, false};
  if (code == CURLE_FILESIZE_EXCEEDED) {
    return {MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_TOO_LARGE",
                      absl::StrCat("the url has more than ", limits_.max_bytes, " bytes")),
            std::nullopt, false};
  }
  if (code == CURLE_OPERATION_TIMEDOUT) {
    const bool connected = begun_;
    if (!connected) return {FetchFailed("no answer in time"), std::nullopt, false};
    return {MakeError(absl::StatusCode::kDeadlineExceeded, "FETCH_TOO_SLOW",
                      absl::StrCat("the url was too slow: ", received_, " bytes came")),
            std::nullopt, false};
  }
  if (code != CURLE_OK) {
    return {FetchFailed("the connection failed"), std::nullopt,
            received_ > 0 && !validator_.empty()};
  }
  char* location = nullptr;
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &location);
  if (location != nullptr) {
    auto next = guard_.CheckUrl(location);
    if (!next.ok()) return {next.status(), std::nullopt, false};
    return {absl::OkStatus(), *std::move(next), false};
  }
  if (!begun_) return {Begin(), std::nullopt, false};  // no byte came
  return {absl::OkStatus(), std::nullopt, false};
}

absl::Status Download::Run(CheckedUrl url) {
  int redirects = 0, attempts = 1;
  while (true) {
    Outcome outcome = Connect(url);
    if (outcome.redirect) {
      if (received_ > 0 || ++redirects > guard_.max_redirects()) return UrlGuard::Refusal();
      url = *std::move(outcome.redirect);
      continue;
    }
    if (outcome.may_resume && attempts < limits_.attempts && Clock::Real().Monotonic() < end_) {
      ++attempts;
      continue;
    }
    return outcome.status;
  }
}

}  // namespace

UrlFetcher::UrlFetcher(UrlRules rules, const FetchLimits& limits)
    : guard_(std::move(rules)), limits_(limits) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
}

UrlFetcher::~UrlFetcher() { curl_global_cleanup(); }

absl::Status UrlFetcher::Fetch(absl::string_view url, FetchSink& sink,
                               const std::function<bool()>& cancelled, UrlRefusal* why) const {
  VNSA_ASSIGN_OR_RETURN(CheckedUrl checked, guard_.CheckUrl(url, why));
  Download download(guard_, limits_, sink, cancelled);
  absl::Status status = download.Run(std::move(checked));
  // What passed the first check was refused on the way: at a socket, or at a redirect.
  if (why != nullptr) {
    *why = download.address_refused() ? UrlRefusal::kAddress : UrlRefusal::kRedirect;
  }
  return status;
}

}  // namespace videonsa
