// media_bench frames CLIP (--fps X | --every) [--runs N]: seconds from an opened file to the last
//   RGB frame in this process, best of N; decoder processes are started before, as in a server.
// media_bench memory CLIP [--frames N]: a complete load in pieces; resident peaks in MB.
// One JSON object on stdout; tests/bench/media_vs_peers.py compares it with PyAV and decord.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/status_macros.h"
#include "runtime/media/decoder_pool.h"
#include "runtime/media/frame_sampler.h"
#include "runtime/media/media_loader.h"
#include "runtime/media/media_source.h"

namespace videonsa {
namespace {

constexpr int kSlots = 6;

std::string DecoderBinary() {
  return (std::filesystem::canonical("/proc/self/exe").parent_path() / "videonsa-decoder").string();
}

struct FramesRun {
  double seconds = 0;
  int64_t frames = 0, decoded = 0;
  uint64_t checksum = 0;
};

absl::StatusOr<FramesRun> RunFrames(DecoderPool& pool, const std::string& clip, double fps) {
  VNSA_ASSIGN_OR_RETURN(auto lease, pool.Acquire({}));
  VNSA_RETURN_IF_ERROR(lease->AwaitReady({}));
  const absl::Duration begin = Clock::Real().Monotonic();
  VNSA_ASSIGN_OR_RETURN(const OwnedFd input, OpenSource({.path = clip}));
  decoder::OpenBody open{};
  open.kind = decoder::MediaKind::kVideo;
  open.threads = std::max(1u, std::thread::hardware_concurrency());
  open.max_pixels = 8'850'000;
  open.max_duration_ms = 7'200'000;
  open.max_packets = 432'000;
  open.max_streams = 16;
  open.stream = -1;
  VNSA_ASSIGN_OR_RETURN(const auto facts, lease->Open(open, input.get(), {}));
  std::vector<int64_t> indices(facts.num_packets);
  std::iota(indices.begin(), indices.end(), 0);
  if (fps > 0) {
    VNSA_ASSIGN_OR_RETURN(
        auto choice,
        ChooseFrames({.fps = fps}, facts.num_packets,
                     static_cast<double>(facts.fps_num) / facts.fps_den, fps, 100'000));
    indices = std::move(choice.indices);
  }
  VNSA_RETURN_IF_ERROR(lease->Sample(indices, kSlots, decoder::PixelFormat::kRgb24, {}));
  FramesRun run;
  while (true) {
    VNSA_ASSIGN_OR_RETURN(const auto frame, lease->NextFrame({}));
    if (!frame) break;
    // Every cache line of the frame is read here: it has arrived.
    for (uint64_t i = 0; i < frame->bytes; i += 64) run.checksum += frame->pixels[i];
    ++run.frames;
    lease->Release(*frame);
  }
  run.seconds = absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin);
  run.decoded = lease->counts().frames_decoded;
  return run;
}

// A field such as VmHWM of /proc/PID/status in MB.
double StatusMb(const std::string& pid, const std::string& field) {
  std::ifstream in("/proc/" + pid + "/status");
  for (std::string line; std::getline(in, line);) {
    if (absl::StartsWith(line, field + ":"))
      return std::atof(line.c_str() + field.size() + 1) / 1024;
  }
  return 0;
}

double ChildrenMb(const std::string& field) {
  double sum = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream in(entry.path() / "stat");
    std::string pid, name, state;
    pid_t parent = 0;
    if (in >> pid >> name >> state >> parent && parent == getpid()) sum += StatusMb(pid, field);
  }
  return sum;
}

int Frames(const std::string& clip, double fps, int runs) {
  auto pool = DecoderPool::Create(DecoderBinary(), 1, {}, {});
  VNSA_CHECK(pool.ok()) << pool.status();
  FramesRun best;
  for (int i = 0; i < runs; ++i) {
    const auto run = RunFrames(**pool, clip, fps);
    VNSA_CHECK(run.ok()) << run.status();
    if (i == 0 || run->seconds < best.seconds) best = *run;
  }
  std::printf("{\"seconds\": %.4f, \"frames\": %ld, \"decoded\": %ld, \"checksum\": %lu}\n",
              best.seconds, static_cast<long>(best.frames), static_cast<long>(best.decoded),
              static_cast<unsigned long>(best.checksum));
  return 0;
}

int Memory(const std::string& clip, int frames) {
  MediaOptions options;
  options.decoder_binary = DecoderBinary();
  options.decoder_processes = 1;
  options.max_frames = frames;
  const auto loader = MediaLoader::Create(options);
  VNSA_CHECK(loader.ok()) << loader.status();
  const double before = StatusMb("self", "VmRSS");
  int64_t rows = 0;
  LoadControl control;
  control.take_piece = [&](PatchPiece piece) {
    rows += piece.patches->grid.num_patches();
    return absl::OkStatus();
  };
  const absl::Duration begin = Clock::Real().Monotonic();
  const auto loaded = (*loader)->LoadVideo({.path = clip}, {.num_frames = frames}, control);
  VNSA_CHECK(loaded.ok()) << loaded.status();
  std::printf(
      "{\"seconds\": %.2f, \"frames\": %zu, \"grid\": [%d, %d, %d], \"rows_mb\": %.0f, "
      "\"before_mb\": %.0f, \"peak_mb\": %.0f, \"decoder_peak_mb\": %.0f}\n",
      absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin), loaded->report.frame_times.size(),
      loaded->grid.t, loaded->grid.h, loaded->grid.w,
      static_cast<double>(rows) * kPatchDim * 4 / (1 << 20), before, StatusMb("self", "VmHWM"),
      ChildrenMb("VmHWM"));
  return 0;
}

int Main(const std::vector<std::string>& args) {
  double fps = -1;
  int runs = 3, frames = 768;
  for (size_t i = 2; i < args.size(); ++i) {
    const bool has_value = i + 1 < args.size();
    if (args[i] == "--every") {
      fps = 0;
    } else if (args[i] == "--fps" && has_value) {
      fps = std::atof(args[++i].c_str());
    } else if (args[i] == "--runs" && has_value) {
      runs = std::max(1, std::atoi(args[++i].c_str()));
    } else if (args[i] == "--frames" && has_value) {
      frames = std::atoi(args[++i].c_str());
    }
  }
  if (args.size() >= 3 && args[0] == "frames" && fps >= 0) return Frames(args[1], fps, runs);
  if (args.size() >= 2 && args[0] == "memory") return Memory(args[1], frames);
  std::cerr << "usage: media_bench frames CLIP (--fps X | --every) [--runs N]\n"
               "       media_bench memory CLIP [--frames N]\n";
  return 2;
}

}  // namespace
}  // namespace videonsa

int main(int argc, char** argv) { return videonsa::Main({argv + 1, argv + argc}); }
