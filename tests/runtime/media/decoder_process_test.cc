#include "runtime/media/decoder_process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <numeric>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/media/decoder_pool.h"
#include "runtime/media/media_source.h"

namespace videonsa {
namespace {

namespace fs = std::filesystem;

const std::string kDecoder = VIDEONSA_BIN_DIR "/videonsa-decoder";
const std::string kClip = VIDEONSA_TEST_DATA "/media/testvid_1022ms.mp4";
constexpr int64_t kClipFrames = 30;

std::string FakeDecoder() {
  return (fs::canonical("/proc/self/exe").parent_path() / "fake_decoder").string();
}

std::string ReasonOf(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : status.ToString();
}

decoder::OpenBody OpenVideo() {
  decoder::OpenBody open{};
  open.threads = 2;
  open.kind = decoder::MediaKind::kVideo;
  open.max_pixels = 1 << 20;
  open.max_duration_ms = 60'000;
  open.max_packets = 1000;
  open.max_streams = 8;
  open.stream = -1;
  return open;
}

DecodeLimits Soon() { return {.timeout = Clock::Real().Monotonic() + absl::Seconds(60)}; }

// Opens, samples and reads everything; `step` is told the number of each message before it.
absl::Status ReadAll(DecoderProcess& process, const MediaSource& source,
                     const std::function<void(int)>& step, const DecodeLimits& limits) {
  int message = 0;
  step(message++);
  if (const auto status = process.AwaitReady(limits); !status.ok()) return status;
  step(message++);
  const auto input = OpenSource(source);
  if (!input.ok()) return input.status();
  const auto facts = process.Open(OpenVideo(), input->get(), limits);
  if (!facts.ok()) return facts.status();
  step(message++);
  std::vector<int64_t> indices(facts->num_packets);
  std::iota(indices.begin(), indices.end(), 0);
  const auto sampled = process.Sample(indices, 8, decoder::PixelFormat::kRgb24, limits);
  if (!sampled.ok()) return sampled;
  while (true) {
    step(message++);
    const auto frame = process.NextFrame(limits);
    if (!frame.ok()) return frame.status();
    if (!*frame) return absl::OkStatus();
    process.Release(**frame);
  }
}

TEST(DecoderProcessTest, ReadsAClipTwice) {
  const auto process = DecoderProcess::Start(kDecoder);
  ASSERT_TRUE(process.ok()) << process.status();
  for (int i = 0; i < 2; ++i) {
    int messages = 0;
    const auto read = ReadAll(
        **process, {.path = kClip}, [&](int) { ++messages; }, Soon());
    EXPECT_TRUE(read.ok()) << read;
    EXPECT_EQ(messages, 3 + kClipFrames + 1);
    EXPECT_FALSE((*process)->Fresh());
  }
}

TEST(DecoderProcessTest, DeathAtEveryMessageIsATypedError) {
  int survived = 0;
  for (int victim = 0; victim < 3 + kClipFrames + 1; ++victim) {
    const auto process = DecoderProcess::Start(kDecoder);
    ASSERT_TRUE(process.ok()) << process.status();
    const auto kill_at = [&](int message) {
      if (message == victim) kill((*process)->pid(), SIGKILL);
    };
    const auto read = ReadAll(**process, {.path = kClip}, kill_at, Soon());
    if (read.ok()) {
      // It had already sent all that was asked for.
      ++survived;
      continue;
    }
    EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable) << victim;
    EXPECT_EQ(ReasonOf(read), "DECODER_DIED") << victim;
    EXPECT_TRUE(GetErrorInfo(read)->retry_after.has_value());
    EXPECT_FALSE((*process)->Alive());
  }
  EXPECT_LT(survived, 15);  // eight slots are filled ahead
}

class LieTest : public testing::TestWithParam<const char*> {};

TEST_P(LieTest, IsNoticed) {
  const auto process = DecoderProcess::Start(FakeDecoder());
  ASSERT_TRUE(process.ok()) << process.status();
  const MediaSource source{.bytes = std::make_shared<const std::string>(GetParam())};
  const auto read = ReadAll(
      **process, source, [](int) {}, Soon());
  EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable) << read;
  EXPECT_EQ(ReasonOf(read), "DECODER_DIED");
  EXPECT_FALSE((*process)->Alive());
}

INSTANTIATE_TEST_SUITE_P(Lies, LieTest,
                         testing::Values("facts-negative", "facts-huge", "facts-bytes",
                                         "facts-native", "facts-packets", "facts-duration",
                                         "facts-rate", "facts-name", "facts-magic", "facts-type",
                                         "facts-short", "facts-descriptor", "facts-exit",
                                         "frame-slot", "frame-sequence", "frame-bytes",
                                         "frame-shrink", "frame-early", "frame-exit"));

TEST(DecoderProcessTest, UnknownFailureIsInternal) {
  const auto process = DecoderProcess::Start(FakeDecoder());
  ASSERT_TRUE(process.ok());
  const MediaSource source{.bytes = std::make_shared<const std::string>("facts-failure")};
  const auto read = ReadAll(
      **process, source, [](int) {}, Soon());
  EXPECT_EQ(read.code(), absl::StatusCode::kInternal);
}

TEST(DecoderProcessTest, ASlotInUseCannotBeSentAgain) {
  const auto process = DecoderProcess::Start(FakeDecoder());
  ASSERT_TRUE(process.ok());
  const auto input =
      OpenSource({.bytes = std::make_shared<const std::string>("frame-twice")}).value();
  ASSERT_TRUE((*process)->Open(OpenVideo(), input.get(), Soon()).ok());
  ASSERT_TRUE((*process)->Sample({0, 1, 2}, 3, decoder::PixelFormat::kRgb24, Soon()).ok());
  ASSERT_TRUE((*process)->NextFrame(Soon()).ok());  // held
  EXPECT_EQ(ReasonOf((*process)->NextFrame(Soon()).status()), "DECODER_DIED");
}

TEST(DecoderProcessTest, TimesAreClamped) {
  const auto process = DecoderProcess::Start(FakeDecoder());
  ASSERT_TRUE(process.ok());
  const MediaSource source{.bytes = std::make_shared<const std::string>("frame-times")};
  const auto read = ReadAll(
      **process, source, [](int) {}, Soon());
  EXPECT_TRUE(read.ok()) << read;
  for (absl::Duration time : (*process)->FrameTimes()) {
    EXPECT_GE(time, absl::ZeroDuration());
    EXPECT_LE(time, absl::Minutes(1));
  }
}

TEST(DecoderProcessTest, AHangEndsAtTheLimit) {
  for (const char* lie : {"facts-hang", "frame-hang"}) {
    for (const bool deadline : {false, true}) {
      const auto process = DecoderProcess::Start(FakeDecoder());
      ASSERT_TRUE(process.ok());
      ASSERT_TRUE((*process)->AwaitReady(Soon()).ok());
      const absl::Duration end = Clock::Real().Monotonic() + absl::Milliseconds(50);
      const DecodeLimits limits =
          deadline ? DecodeLimits{.deadline = end} : DecodeLimits{.timeout = end};
      const MediaSource source{.bytes = std::make_shared<const std::string>(lie)};
      const auto read = ReadAll(
          **process, source, [](int) {}, limits);
      EXPECT_EQ(ReasonOf(read), deadline ? "DEADLINE_EXCEEDED" : "MEDIA_TOO_LARGE");
      EXPECT_FALSE((*process)->Alive());
    }
  }
}

TEST(DecoderPoolTest, RefusesADecoderThatDoesNotAnswer) {
  const fs::path folder = fs::temp_directory_path() / ("fake_decoder_" + std::to_string(getpid()));
  fs::create_directory(folder);
  for (const char* name : {"stranger", "gone"}) {
    fs::create_symlink(FakeDecoder(), folder / name);
    const auto pool = DecoderPool::Create((folder / name).string(), 1, {}, {});
    EXPECT_EQ(pool.status().code(), absl::StatusCode::kFailedPrecondition) << name;
  }
  const auto missing = DecoderPool::Create((folder / "missing").string(), 1, {}, {});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  fs::remove_all(folder);
}

TEST(DecoderPoolTest, ReplacesTheDead) {
  const auto pool = DecoderPool::Create(kDecoder, 2, {}, {});
  ASSERT_TRUE(pool.ok()) << pool.status();
  EXPECT_EQ((*pool)->num_alive(), 2);
  for (int i = 0; i < 4; ++i) {
    auto lease = (*pool)->Acquire({});
    ASSERT_TRUE(lease.ok());
    kill((*lease)->pid(), SIGKILL);
    while ((*lease)->Alive()) sched_yield();
  }
  EXPECT_EQ((*pool)->num_alive(), 2);
  auto lease = (*pool)->Acquire({});
  ASSERT_TRUE(lease.ok());
  EXPECT_TRUE((*lease)->AwaitReady(Soon()).ok());
}

TEST(DecoderPoolTest, WaitingEndsWithTheDeadline) {
  const auto pool = DecoderPool::Create(kDecoder, 1, {}, {});
  ASSERT_TRUE(pool.ok());
  const auto lease = (*pool)->Acquire({});
  const auto second =
      (*pool)->Acquire({.deadline = Clock::Real().Monotonic() + absl::Milliseconds(20)});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace videonsa
