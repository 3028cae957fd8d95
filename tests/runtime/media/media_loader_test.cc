#include "runtime/media/media_loader.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

namespace fs = std::filesystem;

std::string DataPath(const std::string& name) { return VIDEONSA_TEST_DATA "/media/" + name; }
MediaSource File(const std::string& name) { return {.path = DataPath(name)}; }
MediaSource Bytes(std::string bytes) {
  return {.bytes = std::make_shared<const std::string>(std::move(bytes))};
}
std::string Contents(const std::string& name) {
  std::ifstream in(DataPath(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::unique_ptr<MediaLoader> NewLoader(MediaOptions options = {}) {
  options.decoder_binary = VIDEONSA_BIN_DIR "/videonsa-decoder";
  auto loader = MediaLoader::Create(options);
  EXPECT_TRUE(loader.ok()) << loader.status();
  return *std::move(loader);
}

std::string ReasonOf(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : status.ToString();
}

int NumDescriptors() {
  const fs::directory_iterator folder("/proc/self/fd");
  return static_cast<int>(std::distance(fs::begin(folder), fs::end(folder)));
}

// Decoder processes that this process started.
std::vector<pid_t> Decoders() {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream in(entry.path() / "stat");
    std::string pid, name, state;
    pid_t parent = 0;
    if (!(in >> pid >> name >> state >> parent)) continue;
    if (parent == getpid() && name.find("videonsa-decode") != std::string::npos && state != "Z") {
      found.push_back(std::stoi(pid));
    }
  }
  return found;
}

void KillDecoders() {
  for (pid_t pid : Decoders()) kill(pid, SIGKILL);
}

TEST(MediaLoaderTest, LoadsAClip) {
  const auto loader = NewLoader();
  const auto loaded = loader->LoadVideo(File("testvid_1022ms.mp4"), {.num_frames = 8}, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->grid, (PatchGrid{4, 28, 38}));
  EXPECT_EQ(loaded->patches->grid, loaded->grid);
  EXPECT_EQ(loaded->patches->rows.size(), size_t(loaded->grid.num_patches()) * kPatchDim);
  EXPECT_EQ(loaded->second_per_grid, 1.0);
  const VisualReport& report = loaded->report;
  EXPECT_EQ(report.source_width, 480);
  EXPECT_EQ(report.source_height, 360);
  EXPECT_EQ(report.width, 38 * 14);
  EXPECT_EQ(report.tokens, 4 * 14 * 19);
  ASSERT_EQ(report.frame_times.size(), 8u);
  EXPECT_EQ(report.frame_times[0], absl::ZeroDuration());
  EXPECT_NEAR(absl::ToDoubleSeconds(report.frame_times[7]), 29 / 29.917, 1e-3);
  EXPECT_GT(report.frames_decoded, 7);
  EXPECT_LE(report.frames_decoded, 30);
}

TEST(MediaLoaderTest, UpstreamModePassesTheRate) {
  const auto loader = NewLoader();
  const auto loaded = loader->LoadVideo(File("h265_video.mp4"),
                                        {.fps = 4.0, .mode = PreprocessMode::kQwenVlUtils}, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->grid.t, 2);
  EXPECT_FLOAT_EQ(static_cast<float>(loaded->second_per_grid), 0.5f);
}

TEST(MediaLoaderTest, TurnsRotatedClips) {
  const auto loader = NewLoader();
  const auto loaded = loader->LoadVideo(File("video_90.mov"), {}, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->report.source_width, 320);
  EXPECT_EQ(loaded->report.source_height, 568);
  EXPECT_GT(loaded->grid.h, loaded->grid.w);
}

TEST(MediaLoaderTest, TimesOfAVariableRateAreTheFramesOwn) {
  const auto loader = NewLoader();
  const auto loaded =
      loader->LoadVideo(File("sample_android_slow_motion.mp4"), {.num_frames = 6}, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto& times = loaded->report.frame_times;
  absl::Duration shortest = absl::InfiniteDuration(), longest;
  for (size_t i = 1; i < times.size(); ++i) {
    shortest = std::min(shortest, times[i] - times[i - 1]);
    longest = std::max(longest, times[i] - times[i - 1]);
  }
  EXPECT_LT(shortest, absl::Milliseconds(70));
  EXPECT_GT(longest, absl::Milliseconds(300));
}

TEST(MediaLoaderTest, OneFrameIsAClip) {
  const auto loader = NewLoader();
  const auto loaded = loader->LoadVideo(File("tiny-1frame.webm"), {}, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->grid.t, 1);
  EXPECT_EQ(loaded->report.frame_times.size(), 1u);
}

TEST(MediaLoaderTest, BytesPiecesAndPlansAgreeWithTheFile) {
  const auto loader = NewLoader();
  const VideoSampling sampling{.num_frames = 10};
  const auto whole = loader->LoadVideo(File("testvid_1022ms.mp4"), sampling, {});
  ASSERT_TRUE(whole.ok());
  std::vector<float> rows;
  LoadControl control;
  control.take_piece = [&](PatchPiece piece) {
    EXPECT_EQ(piece.whole, whole->grid);
    rows.insert(rows.end(), piece.patches->rows.begin(), piece.patches->rows.end());
    return absl::OkStatus();
  };
  const auto pieces = loader->LoadVideo(Bytes(Contents("testvid_1022ms.mp4")), sampling, control);
  ASSERT_TRUE(pieces.ok()) << pieces.status();
  EXPECT_EQ(pieces->patches, nullptr);
  EXPECT_EQ(rows, whole->patches->rows);
  const auto plan = loader->PlanVideo(File("testvid_1022ms.mp4"), sampling);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->grid, whole->grid);
  EXPECT_EQ(plan->report.frame_times, whole->report.frame_times);
  EXPECT_EQ(plan->report.tokens, whole->report.tokens);
}

TEST(MediaLoaderTest, APieceThatIsRefusedEndsTheLoad) {
  const auto loader = NewLoader();
  LoadControl control;
  control.take_piece = [](PatchPiece) { return absl::ResourceExhaustedError("full"); };
  const auto loaded = loader->LoadVideo(File("testvid_1022ms.mp4"), {}, control);
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(loader->LoadVideo(File("testvid_1022ms.mp4"), {}, {}).ok());
}

TEST(MediaLoaderTest, Pictures) {
  const auto loader = NewLoader();
  for (const char* name :
       {"transparent.png", "transparent.webp", "hopper_orientation_6.jpg", "pil_sample_cmyk.jpg"}) {
    for (const auto mode : {PreprocessMode::kLmmsEval, PreprocessMode::kQwenVlUtils}) {
      const ImagePart image{.source = File(name), .mode = mode};
      const auto loaded = loader->LoadImage(image, {});
      ASSERT_TRUE(loaded.ok()) << name << loaded.status();
      EXPECT_TRUE(loaded->patches->image);
      EXPECT_EQ(loaded->grid.t, 1);
      EXPECT_EQ(loaded->patches->rows.size(), size_t(loaded->grid.num_patches()) * kPatchDim);
      const auto plan = loader->PlanImage(image);
      ASSERT_TRUE(plan.ok());
      EXPECT_EQ(plan->grid, loaded->grid);
    }
  }
}

TEST(MediaLoaderTest, AlphaIsDroppedOrBlendedByMode) {
  const auto loader = NewLoader();
  const auto mean = [&](PreprocessMode mode) {
    const auto loaded = loader->LoadImage({.source = File("transparent.png"), .mode = mode}, {});
    EXPECT_TRUE(loaded.ok());
    double sum = 0;
    for (float value : loaded->patches->rows) sum += value;
    return sum / static_cast<double>(loaded->patches->rows.size());
  };
  EXPECT_NEAR(mean(PreprocessMode::kLmmsEval), -1.2498, 1e-3);
  EXPECT_NEAR(mean(PreprocessMode::kQwenVlUtils), 1.3330, 1e-3);
}

TEST(MediaLoaderTest, ProbesBothKinds) {
  const auto loader = NewLoader();
  const auto clip = loader->Probe(File("testvid_1022ms.mp4"));
  ASSERT_TRUE(clip.ok());
  EXPECT_FALSE(clip->image);
  EXPECT_EQ(clip->codec, "h264");
  EXPECT_EQ(clip->packet_count, 30);
  EXPECT_NEAR(clip->average_fps, 29.917, 1e-6);
  const auto picture = loader->Probe(File("transparent.webp"));
  ASSERT_TRUE(picture.ok());
  EXPECT_TRUE(picture->image);
  EXPECT_EQ(picture->width, 200);
}

TEST(MediaLoaderTest, BadFilesHaveReasons) {
  const auto loader = NewLoader();
  const std::vector<std::pair<const char*, const char*>> clips = {
      {"corrupted.mp4", "MEDIA_CORRUPT"},
      {"invalid-bitstream.webm", "MEDIA_CORRUPT"},
      {"sample_audio_only.mp4", "MEDIA_UNSUPPORTED"},
      {"small-gif.gif", "MEDIA_CORRUPT"},
      {"small-Mpeg4.mp4", "MEDIA_UNSUPPORTED"},
      {"small-FlashVideo.flv", "MEDIA_CORRUPT"},
      {"small-AudioVideoInterleave.avi", "MEDIA_CORRUPT"},
      {"transparent.png", "MEDIA_UNSUPPORTED"},
  };
  for (const auto& [name, reason] : clips) {
    const auto loaded = loader->LoadVideo(File(name), {}, {});
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(ReasonOf(loaded.status()), reason) << name;
  }
  for (const char* name :
       {"peacock.default.truncated.jpeg", "hippopotamus.regular.truncated.png"}) {
    const auto loaded = loader->LoadImage({.source = File(name)}, {});
    EXPECT_EQ(ReasonOf(loaded.status()), "MEDIA_CORRUPT") << name;
  }
  EXPECT_EQ(ReasonOf(loader->LoadImage({.source = File("testvid_1022ms.mp4")}, {}).status()),
            "MEDIA_UNSUPPORTED");
  EXPECT_EQ(loader->LoadVideo(File("missing.mp4"), {}, {}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(loader->LoadVideo(Bytes(""), {}, {}).status()), "MEDIA_CORRUPT");
  EXPECT_EQ(ReasonOf(loader->LoadVideo(Bytes(std::string(5000, 'x')), {}, {}).status()),
            "MEDIA_UNSUPPORTED");
  EXPECT_EQ(loader->num_decoders(), 2);
}

TEST(MediaLoaderTest, OtherCodecsAreNamed) {
  const auto loader = NewLoader();
  const absl::Status status = loader->LoadVideo(File("mjpeg_1frame.mkv"), {}, {}).status();
  EXPECT_EQ(ReasonOf(status), "MEDIA_UNSUPPORTED");
  EXPECT_TRUE(absl::StrContains(status.message(), "video codec \"mjpeg\"")) << status;
}

TEST(MediaLoaderTest, PlaylistsOpenNothing) {
  const auto loader = NewLoader();
  const std::string secret = DataPath("testvid_1022ms.mp4");
  for (const std::string& text :
       {"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://" + secret + "\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '" + secret + "'\n"}) {
    EXPECT_EQ(ReasonOf(loader->LoadVideo(Bytes(text), {}, {}).status()), "MEDIA_UNSUPPORTED");
  }
}

TEST(MediaLoaderTest, DamagedAndCutClipsNeverBringADecoderDown) {
  const auto loader = NewLoader();
  const std::string clip = Contents("testvid_1022ms.mp4");
  std::mt19937 random(7);
  for (int i = 0; i < 60; ++i) {
    std::string bytes = clip;
    if (i % 2) {
      bytes.resize(random() % bytes.size());
    } else {
      for (int k = 0; k < 20; ++k) bytes[random() % bytes.size()] ^= 1 << random() % 8;
    }
    const auto loaded = loader->LoadVideo(Bytes(bytes), {.num_frames = 4}, {});
    const bool typed =
        loaded.ok() || (loaded.status().code() == absl::StatusCode::kInvalidArgument &&
                        GetErrorInfo(loaded.status()).has_value());
    EXPECT_TRUE(typed) << i << ": " << loaded.status();
  }
}

TEST(MediaLoaderTest, Limits) {
  MediaOptions options;
  options.max_source_pixels = 480 * 360 - 1;
  const auto narrow = NewLoader(options);
  const auto large = narrow->LoadVideo(File("testvid_1022ms.mp4"), {}, {});
  EXPECT_EQ(ReasonOf(large.status()), "MEDIA_TOO_LARGE");
  EXPECT_EQ(ReasonOf(narrow->LoadImage({.source = File("testvid_1022ms.mp4")}, {}).status()),
            "MEDIA_UNSUPPORTED");
  options = {};
  options.max_clip_duration = absl::Milliseconds(500);
  const auto brief = NewLoader(options);
  EXPECT_EQ(ReasonOf(brief->LoadVideo(File("testvid_1022ms.mp4"), {}, {}).status()),
            "MEDIA_TOO_LARGE");
  options = {};
  options.max_source_pixels = 200 * 150 - 1;
  const auto small = NewLoader(options);
  for (const char* name : {"transparent.png", "transparent.webp"}) {
    EXPECT_EQ(ReasonOf(small->LoadImage({.source = File(name)}, {}).status()), "MEDIA_TOO_LARGE");
  }
}

TEST(MediaLoaderTest, RangeErrors) {
  const auto loader = NewLoader();
  const auto reason = [&](const VideoSampling& sampling) {
    return ReasonOf(loader->LoadVideo(File("testvid_1022ms.mp4"), sampling, {}).status());
  };
  EXPECT_EQ(reason({.range_begin = absl::Seconds(5)}), "FIELD_INVALID");
  EXPECT_EQ(reason({.range_begin = absl::Milliseconds(500), .range_end = absl::Milliseconds(400)}),
            "FIELD_INVALID");
  EXPECT_EQ(reason({.num_frames = 32}), "FIELD_INVALID");  // the clip has 30
  EXPECT_EQ(reason({.num_frames = 5000}), "TOO_MANY_FRAMES");
  EXPECT_EQ(reason({.max_pixels = -5}), "FIELD_INVALID");
  const auto ranged = loader->LoadVideo(
      File("testvid_1022ms.mp4"),
      {.range_begin = absl::Milliseconds(400), .range_end = absl::Milliseconds(800)}, {});
  ASSERT_TRUE(ranged.ok()) << ranged.status();
  EXPECT_GE(ranged->report.frame_times.front(), absl::Milliseconds(400));
  EXPECT_LE(ranged->report.frame_times.back(), absl::Milliseconds(801));
}

TEST(MediaLoaderTest, CancelAndDeadline) {
  const auto loader = NewLoader();
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  LoadControl control{.cancelled = cancelled};
  control.progress = [&](const char*, int64_t, int64_t) { *cancelled = true; };
  const auto stopped = loader->LoadVideo(File("testvid_1022ms.mp4"), {.num_frames = 30}, control);
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  LoadControl late{.deadline = Clock::Real().Monotonic() - absl::Seconds(1)};
  EXPECT_EQ(loader->LoadVideo(File("testvid_1022ms.mp4"), {}, late).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(loader->LoadImage({.source = File("transparent.png")}, late).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(loader->LoadVideo(File("testvid_1022ms.mp4"), {}, {}).ok());
}

TEST(MediaLoaderTest, AKilledDecoderFailsOneLoadAndComesBack) {
  const auto loader = NewLoader();
  for (int victim : {1, 5, 12}) {
    LoadControl control;
    control.progress = [&](const char*, int64_t done, int64_t) {
      if (done == victim) KillDecoders();
    };
    const auto killed = loader->LoadVideo(File("testvid_1022ms.mp4"), {.num_frames = 30}, control);
    EXPECT_EQ(killed.status().code(), absl::StatusCode::kUnavailable) << killed.status();
    EXPECT_EQ(ReasonOf(killed.status()), "DECODER_DIED");
    EXPECT_TRUE(GetErrorInfo(killed.status())->retry_after.has_value());
    // Idle ones died as well; nobody notices.
    EXPECT_TRUE(loader->LoadVideo(File("testvid_1022ms.mp4"), {}, {}).ok());
    EXPECT_TRUE(loader->LoadImage({.source = File("transparent.png")}, {}).ok());
  }
  KillDecoders();
  EXPECT_TRUE(loader->Probe(File("testvid_1022ms.mp4")).ok());
}

TEST(MediaLoaderTest, LeavesNoDescriptorAndNoProcessBehind) {
  const int before = NumDescriptors();
  {
    const auto loader = NewLoader();
    const auto round = [&] {
      EXPECT_TRUE(loader->LoadVideo(File("h265_video.mp4"), {}, {}).ok());
      EXPECT_FALSE(loader->LoadVideo(File("corrupted.mp4"), {}, {}).ok());
      EXPECT_TRUE(loader->LoadImage({.source = File("transparent.webp")}, {}).ok());
      EXPECT_TRUE(loader->PlanVideo(Bytes(Contents("h265_video.mp4")), {}).ok());
      EXPECT_FALSE(loader->LoadVideo(File("h265_video.mp4"), {.num_frames = 1}, {}).ok());
      KillDecoders();
    };
    round();
    const int warm = NumDescriptors();
    for (int i = 0; i < 8; ++i) round();
    EXPECT_EQ(NumDescriptors(), warm);
  }
  EXPECT_EQ(NumDescriptors(), before);
  EXPECT_TRUE(Decoders().empty());
}

TEST(MediaLoaderTest, ThirtyTwoAtOnceGiveTheSameRows) {
  MediaOptions options;
  options.decoder_processes = 3;
  const auto loader = NewLoader(options);
  const VideoSampling sampling{.num_frames = 8, .min_pixels = 3136, .max_pixels = 50176};
  const auto alone = loader->LoadVideo(File("testvid_1022ms.mp4"), sampling, {});
  ASSERT_TRUE(alone.ok());
  std::vector<std::thread> threads;
  std::atomic<int> equal = 0, stopped = 0;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&, i] {
      auto cancelled = std::make_shared<std::atomic<bool>>(false);
      LoadControl control{.cancelled = cancelled};
      if (i % 4 == 3) {
        control.progress = [&](const char*, int64_t, int64_t) { *cancelled = true; };
      }
      const auto loaded = loader->LoadVideo(File("testvid_1022ms.mp4"), sampling, control);
      if (loaded.ok() && loaded->patches->rows == alone->patches->rows) ++equal;
      if (loaded.status().code() == absl::StatusCode::kCancelled) ++stopped;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, 24);
  EXPECT_EQ(stopped, 8);
  EXPECT_EQ(loader->num_decoders(), 3);
}

}  // namespace
}  // namespace videonsa
