#include "client/openai/http_connection.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/time/clock.h"

namespace videonsa::openai {
namespace {

thread_local HttpConnection* current = nullptr;

// How often a waiting connection looks whether it should end.
constexpr absl::Duration kLook = absl::Milliseconds(100);

// True if `events` come on `fd` before `deadline`.
bool Await(int fd, short events, absl::Time deadline) {
  while (true) {
    const int64_t left =
        absl::ToInt64Milliseconds(std::max(deadline - absl::Now(), absl::ZeroDuration()));
    pollfd waiting{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left, 1 << 30)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

}  // namespace

HttpConnection::HttpConnection(int fd, const ConnectionLimits& limits)
    : fd_(fd), limits_(limits), deadline_(absl::Now()) {
  current = this;
}

HttpConnection::~HttpConnection() {
  current = nullptr;
  // Unread bytes would turn close() into a reset, which may destroy the answer on its way.
  shutdown(fd_, SHUT_WR);
  const absl::Time until = absl::Now() + kLook;
  while (close_ && Await(fd_, POLLIN, until) && recv(fd_, buffer_, sizeof(buffer_), 0) > 0) {
  }
  close(fd_);
}

HttpConnection* HttpConnection::Current() { return current; }

bool HttpConnection::WaitForRequest(const std::function<bool()>& stop) {
  const absl::Time idle_end = absl::Now() + limits_.idle;
  while (begin_ == end_ && !Await(fd_, POLLIN, std::min(idle_end, absl::Now() + kLook))) {
    if (stop() || absl::Now() >= idle_end) return false;
  }
  deadline_ = absl::Now() + limits_.head_time;
  bytes_left_ = limits_.head_bytes;
  return begin_ < end_ || !PeerGone();
}

void HttpConnection::BeginBody() {
  deadline_ = absl::Now() + limits_.body_time;
  bytes_left_ = limits_.body_bytes + limits_.head_bytes;  // chunks have heads as well
}

bool HttpConnection::PeerGone() const {
  char byte;
  const ssize_t got = recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

bool HttpConnection::Fill() {
  if (!Await(fd_, POLLIN, deadline_)) return false;
  const ssize_t got = recv(fd_, buffer_, sizeof(buffer_), 0);
  if (got <= 0) return false;
  begin_ = 0;
  end_ = static_cast<size_t>(got);
  return true;
}

bool HttpConnection::is_readable() const { return begin_ < end_ || Await(fd_, POLLIN, deadline_); }

bool HttpConnection::is_writable() const {
  return Await(fd_, POLLOUT, absl::Now() + limits_.write_stall) && !PeerGone();
}

ssize_t HttpConnection::read(char* ptr, size_t size) {
  if (bytes_left_ == 0 || absl::Now() > deadline_) return -1;
  if (begin_ == end_ && !Fill()) return -1;
  const size_t taken = std::min({size, end_ - begin_, bytes_left_});
  std::memcpy(ptr, buffer_ + begin_, taken);
  begin_ += taken;
  bytes_left_ -= taken;
  return static_cast<ssize_t>(taken);
}

ssize_t HttpConnection::write(const char* ptr, size_t size) {
  while (true) {
    const ssize_t sent = send(fd_, ptr, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return -1;
    if (!Await(fd_, POLLOUT, absl::Now() + limits_.write_stall)) return -1;
  }
}

// Addresses are not used: nothing here decides by them, and logs do not name callers.
void HttpConnection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

void HttpConnection::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace videonsa::openai
