// Any bytes as a chat request of the OpenAI front: refused with an error that becomes JSON, or a
// question; and what is taken out of a body leaves JSON of JSON and nothing else of anything else.
#include <cstddef>
#include <cstdint>

#include "client/openai/api_error.h"
#include "client/openai/chat_request.h"
#include "client/openai/data_urls.h"
#include "nlohmann/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa::openai;
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  const DataUrls urls(body, /*least=*/8);
  if (nlohmann::json::accept(body) != nlohmann::json::accept(urls.json())) __builtin_trap();
  const auto request = ParseChatRequest(body);
  if (request.ok()) {
    if (request->question.turns_size() == 0) __builtin_trap();
    return 0;
  }
  const ApiError error = ToApiError(request.status());
  if (error.http_status != 400) __builtin_trap();
  if (nlohmann::json::parse(error.Json(), nullptr, false).is_discarded()) __builtin_trap();
  return 0;
}
