// Any bytes as a chat request of the OpenAI front: refused with an error that becomes JSON, or a
// question.
#include <cstddef>
#include <cstdint>

#include "client/openai/api_error.h"
#include "client/openai/chat_request.h"
#include "nlohmann/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa::openai;
  const auto request = ParseChatRequest({reinterpret_cast<const char*>(data), size});
  if (request.ok()) {
    if (request->question.turns_size() == 0) __builtin_trap();
    return 0;
  }
  const ApiError error = ToApiError(request.status());
  if (error.http_status != 400) __builtin_trap();
  if (nlohmann::json::parse(error.Json(), nullptr, false).is_discarded()) __builtin_trap();
  return 0;
}
