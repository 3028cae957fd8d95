// Any text as a URL: refused by the one refusal, or https to an allowed host on an allowed port,
// without credentials.
#include <curl/curl.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "runtime/base/check.h"
#include "server/url_fetch/url_guard.h"

namespace {

std::string Part(CURLU* handle, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(handle, part, &text, flags) != CURLUE_OK) return "";
  std::string out = text;
  curl_free(text);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa;
  static const auto* const guard = [] {
    UrlRules rules;
    rules.hosts = {"media.example.org", "*.cdn.example.org"};
    return new UrlGuard(rules);
  }();
  const std::string url(reinterpret_cast<const char*>(data), size);
  const auto checked = guard->CheckUrl(url);
  if (!checked.ok()) {
    VNSA_CHECK(checked.status() == UrlGuard::Refusal()) << checked.status();
    return 0;
  }
  CURLU* const handle = checked->handle();
  const std::string host = Part(handle, CURLUPART_HOST);
  VNSA_CHECK_EQ(Part(handle, CURLUPART_SCHEME), "https");
  VNSA_CHECK(absl::EqualsIgnoreCase(host, "media.example.org") ||
             absl::EndsWithIgnoreCase(host, ".cdn.example.org"))
      << host;
  VNSA_CHECK_EQ(Part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT), "443");
  VNSA_CHECK_EQ(Part(handle, CURLUPART_USER), "");
  VNSA_CHECK_EQ(Part(handle, CURLUPART_PASSWORD), "");
  VNSA_CHECK(size <= 2048) << size;
  return 0;
}
