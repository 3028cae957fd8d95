// A decoder that lies: the name it is started under or the bytes of its input say how.
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <string>

#include "runtime/media/decoder/channel.h"
#include "runtime/media/decoder/wire.h"

namespace videonsa::decoder {
namespace {

constexpr int kWidth = 4, kHeight = 2;

Message GoodFacts() {
  Message message;
  message.type = MessageType::kFacts;
  FactsBody& facts = message.facts;
  std::strcpy(facts.container, "fake");
  std::strcpy(facts.codec, "fake");
  facts.width = kWidth;
  facts.height = kHeight;
  facts.fps_num = 10;
  facts.fps_den = 1;
  facts.num_streams = 1;
  facts.num_packets = 8;
  facts.duration_us = 800'000;
  facts.rgb_bytes = 3 * kWidth * kHeight;
  return message;
}

[[noreturn]] void Hang() {
  Message message;
  int fd;
  while (ReceiveMessage(kChildSocket, &message, &fd) != ReceiveResult::kClosed) {
  }
  _exit(0);
}

bool SendBadFacts(const std::string& lie) {
  Message message = GoodFacts();
  FactsBody& facts = message.facts;
  if (lie == "facts-negative") facts.width = -4;
  if (lie == "facts-huge") facts.width = facts.height = INT_MAX;
  if (lie == "facts-bytes") facts.rgb_bytes = 1;
  if (lie == "facts-native") facts.native_bytes = UINT64_MAX;
  if (lie == "facts-packets") facts.num_packets = INT64_MAX;
  if (lie == "facts-duration") facts.duration_us = INT64_MIN;
  if (lie == "facts-rate") facts.fps_den = -1;
  if (lie == "facts-name") std::memset(facts.codec, 'x', sizeof(facts.codec));
  if (lie == "facts-magic") message.magic = 0;
  if (lie == "facts-type") message.type = static_cast<MessageType>(99);
  if (lie == "facts-short") return send(kChildSocket, &message, 7, 0) == 7;
  if (lie == "facts-descriptor") return SendMessage(kChildSocket, message, 0);
  if (lie == "facts-failure") {
    message.type = MessageType::kError;
    message.error = {static_cast<Failure>(12345), 1, 2};
  }
  return SendMessage(kChildSocket, message);
}

void SendFrame(uint32_t sequence, uint32_t slot, uint64_t bytes) {
  Message message;
  message.type = MessageType::kFrame;
  message.frame = {sequence, slot, bytes};
  SendMessage(kChildSocket, message);
}

void SendBadFrames(const std::string& lie, const SampleBody& sample, int ring) {
  constexpr uint64_t kBytes = 3 * kWidth * kHeight;
  if (lie == "frame-slot") SendFrame(0, sample.num_slots, kBytes);
  if (lie == "frame-sequence") SendFrame(5, 0, kBytes);
  if (lie == "frame-bytes") SendFrame(0, 0, kBytes + 1);
  if (lie == "frame-shrink" && ftruncate(ring, 0) != 0) SendFrame(0, UINT_MAX, kBytes);
  if (lie == "frame-twice") {
    SendFrame(0, 0, kBytes);
    SendFrame(1, 0, kBytes);
  }
  if (lie == "frame-times") {
    void* base = mmap(nullptr, sample.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
    for (uint32_t i = 0; i < sample.num_frames; ++i) {
      static_cast<FrameTime*>(base)[i] = {INT64_MIN, i % 2 ? INT64_MAX : INT64_MIN};
    }
    for (uint32_t i = 0; i < sample.num_frames; ++i) SendFrame(i, i, kBytes);
  }
  if (lie == "frame-hang") Hang();
  if (lie == "frame-exit") _exit(3);
  Message done;
  done.type = MessageType::kDone;
  done.done = {INT64_MIN, INT64_MAX};
  SendMessage(kChildSocket, done);
}

int Run() {
  const std::string name = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  Message hello;
  hello.type = MessageType::kHello;
  hello.version = kWireVersion;
  if (name.ends_with("mute")) Hang();
  if (name.ends_with("stranger")) hello.version = 99;
  if (name.ends_with("gone")) return 1;
  SendMessage(kChildSocket, hello);
  Message message;
  int input = -1;
  if (ReceiveMessage(kChildSocket, &message, &input) != ReceiveResult::kMessage) return 1;
  char text[64] = {};
  if (pread(input, text, sizeof(text) - 1, 0) < 0) return 1;
  const std::string lie = text;
  if (lie == "facts-exit") return 1;
  if (lie == "facts-hang") Hang();
  SendBadFacts(lie);
  int ring = -1;
  if (ReceiveMessage(kChildSocket, &message, &ring) != ReceiveResult::kMessage) return 1;
  if (message.type == MessageType::kSample) SendBadFrames(lie, message.sample, ring);
  Hang();
}

}  // namespace
}  // namespace videonsa::decoder

int main() { return videonsa::decoder::Run(); }
