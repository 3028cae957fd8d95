// videonsa-decoder: reads clips and pictures in a process of its own, so that a hostile file meets
// nothing worth having. Started by the server with a socket as descriptor 3; not for hand use.

#include <fcntl.h>
#include <sys/socket.h>

#include <cstdio>

#include "runtime/media/decoder/job.h"
#include "runtime/media/decoder/sandbox.h"
#include "runtime/media/decoder/wire.h"

extern "C" {
#include <libavutil/log.h>
}

int main() {
  using videonsa::decoder::kChildSocket;
  int type = 0;
  socklen_t bytes = sizeof(type);
  if (getsockopt(kChildSocket, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET) {
    std::fputs("videonsa-decoder is started by videonsa-server\n", stderr);
    return 2;
  }
  fcntl(kChildSocket, F_SETFD, FD_CLOEXEC);
  av_log_set_level(AV_LOG_QUIET);
  if (!videonsa::decoder::EnterSandbox()) {
    std::fputs("videonsa-decoder: the kernel refuses the system call filter\n", stderr);
    return 3;
  }
  videonsa::decoder::ServeJobs(kChildSocket);
  return 0;
}
