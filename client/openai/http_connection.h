#pragma once

#include <httplib.h>

#include <cstddef>
#include <functional>
#include <string>

#include "absl/time/time.h"

namespace videonsa::openai {

/// Bounds of one HTTP connection.
struct ConnectionLimits {
  absl::Duration idle = absl::Seconds(60);         ///< between two requests
  absl::Duration head_time = absl::Seconds(10);    ///< request line and headers, all of them
  absl::Duration body_time = absl::Seconds(60);    ///< the whole body
  absl::Duration write_stall = absl::Seconds(30);  ///< one write that makes no progress
  size_t head_bytes = 64 * 1024;
  size_t body_bytes = 32 * 1024 * 1024;
};

/// A TCP connection as the HTTP library sees it, with limits that the library lacks: total times
/// and sizes of head and body, so that a peer that sends a byte a second cannot hold a thread.
///
/// Owner: the thread that serves the connection; PeerGone and Current only from there.
/// Lifetime: closes the socket.
class HttpConnection final : public httplib::Stream {
 public:
  HttpConnection(int fd, const ConnectionLimits& limits);
  ~HttpConnection() override;

  /// The connection that this thread serves now, or null.
  static HttpConnection* Current();

  /// Waits for the first byte of a request. False: the peer left, was idle too long, or `stop`.
  bool WaitForRequest(const std::function<bool()>& stop);
  /// From here on the limits of a body hold; called when the head has been read.
  void BeginBody();
  /// True once the peer has closed its side or the connection broke. Never blocks.
  bool PeerGone() const;
  /// The rest of a request was left unread: no further request may be read from here.
  void CloseAfterThis() { close_ = true; }
  bool closing() const { return close_; }

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* ptr, size_t size) override;
  ssize_t write(const char* ptr, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return fd_; }

 private:
  // Fills the buffer; false at the end, on failure or past the deadline.
  bool Fill();

  const int fd_;
  const ConnectionLimits& limits_;
  absl::Time deadline_;
  size_t bytes_left_ = 0;
  bool close_ = false;
  char buffer_[16 * 1024];
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace videonsa::openai
