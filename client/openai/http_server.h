#pragma once

#include <httplib.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "client/openai/http_connection.h"

namespace videonsa::openai {

/// The HTTP library's server with bounded connections, one thread each.
///
/// Past `max_connections` a new connection is told 503 by the accepting thread, without reading
/// from it, and closed. Requests whose body the library would leave in the stream (a GET with a
/// body, two lengths) are refused and the connection closed: what follows could otherwise be read
/// as a second request.
class HttpServer final : public httplib::Server {
 public:
  HttpServer(const ConnectionLimits& limits, int max_connections);

  /// Called with the status of every answer, before its first byte is sent. Set before listening.
  void set_on_answer(std::function<void(int)> on_answer) { on_answer_ = std::move(on_answer); }

  int open_connections() const { return open_connections_; }
  /// Connections turned away.
  int64_t refused_connections() const { return refused_connections_; }

 private:
  bool process_and_close_socket(socket_t sock) override;

  const ConnectionLimits limits_;
  std::function<void(int)> on_answer_;
  std::atomic<int> open_connections_{0};
  std::atomic<int64_t> refused_connections_{0};
};

}  // namespace videonsa::openai
