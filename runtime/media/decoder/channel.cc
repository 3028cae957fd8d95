#include "runtime/media/decoder/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace videonsa::decoder {
namespace {

constexpr int kMaxDescriptors = 4;

// Keeps the first descriptor that came with the message and closes the others.
int TakeDescriptor(msghdr* header) {
  int kept = -1;
  for (cmsghdr* control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      if (kept < 0) {
        kept = fd;
      } else {
        close(fd);
      }
    }
  }
  return kept;
}

}  // namespace

bool SendMessage(int socket, const Message& message, int fd) {
  iovec part{const_cast<Message*>(&message), sizeof(message)};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  while (true) {
    const ssize_t sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(sizeof(message))) return true;
    if (sent >= 0 || errno != EINTR) return false;
  }
}

ReceiveResult ReceiveMessage(int socket, Message* message, int* fd) {
  *fd = -1;
  iovec part{message, sizeof(*message)};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  msghdr header{};
  ssize_t got;
  do {
    header = msghdr{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return ReceiveResult::kClosed;
  *fd = TakeDescriptor(&header);
  const bool whole = got == static_cast<ssize_t>(sizeof(*message)) &&
                     (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  if (whole && message->magic == kWireMagic) return ReceiveResult::kMessage;
  if (*fd >= 0) close(*fd);
  *fd = -1;
  return ReceiveResult::kInvalid;
}

}  // namespace videonsa::decoder
