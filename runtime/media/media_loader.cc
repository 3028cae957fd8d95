#include "runtime/media/media_loader.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/media/decoder_pool.h"
#include "runtime/media/frame_sampler.h"
#include "runtime/media/media_source.h"
#include "runtime/media/patch_writer.h"
#include "runtime/media/video_patcher.h"
#include "runtime/media/visual_size.h"

namespace videonsa {
namespace {

constexpr int64_t kMaxPackets = 432'000;
constexpr uint32_t kMaxStreams = 16;
// What a rate of 0 stands for, as in the reference's last resort.
constexpr double kFallbackRate = 25.0;
constexpr uint64_t kRingBytes = uint64_t{48} << 20;
constexpr int kMinSlots = 2, kMaxSlots = 8;
constexpr int64_t kPieceBytes = int64_t{16} << 20;
constexpr unsigned kMaxDecoderThreads = 4;
constexpr int kProbers = 2;
constexpr int kProberNiceness = 10;

// Time that one phase has taken, in pieces.
class PhaseTimer {
 public:
  explicit PhaseTimer(absl::Duration* total) : total_(total), begin_(Clock::Real().Monotonic()) {}
  ~PhaseTimer() { *total_ += Clock::Real().Monotonic() - begin_; }

 private:
  absl::Duration* const total_;
  const absl::Duration begin_;
};

int SlotsFor(uint64_t frame_bytes, int64_t num_frames) {
  const auto fit = static_cast<int64_t>(kRingBytes / std::max<uint64_t>(frame_bytes, 1));
  return static_cast<int>(std::clamp<int64_t>(std::min(fit, num_frames), kMinSlots, kMaxSlots));
}

double RateOf(const decoder::FactsBody& facts) {
  if (facts.fps_num > 0 && facts.fps_den > 0) {
    return static_cast<double>(facts.fps_num) / facts.fps_den;
  }
  return kFallbackRate;
}

class DecoderMediaLoader final : public MediaLoader {
 public:
  DecoderMediaLoader(const MediaOptions& options, std::unique_ptr<DecoderPool> pool,
                     std::unique_ptr<DecoderPool> probers)
      : options_(options), pool_(std::move(pool)), probers_(std::move(probers)) {}

  absl::StatusOr<LoadedVisual> LoadVideo(const MediaSource& source, const VideoSampling& sampling,
                                         const LoadControl& control) override;
  absl::StatusOr<LoadedVisual> LoadImage(const ImagePart& image,
                                         const LoadControl& control) override;
  absl::StatusOr<LoadedVisual> PlanVideo(const MediaSource& source,
                                         const VideoSampling& sampling) override;
  absl::StatusOr<LoadedVisual> PlanImage(const ImagePart& image) override;
  absl::StatusOr<MediaFacts> Probe(const MediaSource& source) override;
  int num_decoders() const override { return pool_->num_alive(); }

 private:
  // A job that a decoder has opened, and what will be made of it.
  struct OpenJob {
    DecoderPool::Lease decoder;
    DecodeLimits limits;
    decoder::FactsBody facts;
  };
  struct VideoPlan {
    FrameChoice choice;
    VisualSize size;
    LoadedVisual visual;
  };

  absl::StatusOr<OpenJob> Open(const MediaSource& source, decoder::OpenBody open,
                               const LoadControl& control) const {
    return OpenIn(*pool_, source, open, control);
  }
  absl::StatusOr<OpenJob> OpenIn(DecoderPool& pool, const MediaSource& source,
                                 decoder::OpenBody open, const LoadControl& control) const;
  absl::StatusOr<VideoPlan> Plan(const decoder::FactsBody& facts,
                                 const VideoSampling& sampling) const;
  absl::StatusOr<VisualSize> PlanPicture(const decoder::FactsBody& facts, const ImagePart& image,
                                         LoadedVisual* visual) const;
  absl::Status ReadFrames(OpenJob& job, VideoPatcher& patcher, LoadedVisual* visual,
                          const LoadControl& control);
  decoder::OpenBody ImageJob(const ImagePart& image) const;
  PreprocessMode ModeOf(const std::optional<PreprocessMode>& mode) const {
    return mode.value_or(options_.mode);
  }

  const MediaOptions options_;
  const std::unique_ptr<DecoderPool> pool_;
  const std::unique_ptr<DecoderPool> probers_;
};

absl::StatusOr<DecoderMediaLoader::OpenJob> DecoderMediaLoader::OpenIn(
    DecoderPool& pool, const MediaSource& source, decoder::OpenBody open,
    const LoadControl& control) const {
  VNSA_ASSIGN_OR_RETURN(const OwnedFd input, OpenSource(source));
  DecodeLimits limits{.control = &control, .deadline = control.deadline};
  VNSA_ASSIGN_OR_RETURN(auto decoder, pool.Acquire(limits));
  limits.timeout = Clock::Real().Monotonic() + options_.decode_timeout;
  open.threads = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxDecoderThreads);
  open.max_pixels = options_.max_source_pixels;
  open.max_duration_ms = absl::ToInt64Milliseconds(options_.max_clip_duration);
  open.max_packets = kMaxPackets;
  open.max_streams = kMaxStreams;
  open.stream = -1;
  open.reference_order = 1;
  auto facts = decoder->Open(open, input.get(), limits);
  if (absl::IsUnavailable(facts.status())) {
    // It may have died while it was idle, unnoticed: the clip gets one fresh process.
    VNSA_RETURN_IF_ERROR(decoder.Replace());
    facts = decoder->Open(open, input.get(), limits);
  }
  VNSA_RETURN_IF_ERROR(facts.status());
  return OpenJob{std::move(decoder), limits, *facts};
}

absl::StatusOr<DecoderMediaLoader::VideoPlan> DecoderMediaLoader::Plan(
    const decoder::FactsBody& facts, const VideoSampling& sampling) const {
  VideoPlan plan;
  VNSA_ASSIGN_OR_RETURN(plan.choice, ChooseFrames(sampling, facts.num_packets, RateOf(facts),
                                                  options_.default_fps, options_.max_frames));
  const PreprocessMode mode = ModeOf(sampling.mode);
  const auto num_frames = static_cast<int64_t>(plan.choice.indices.size());
  VNSA_ASSIGN_OR_RETURN(plan.size, VideoSize({facts.height, facts.width}, num_frames, mode,
                                             {sampling.min_pixels, sampling.max_pixels}, options_));
  LoadedVisual& visual = plan.visual;
  visual.grid = {static_cast<int>((num_frames + kTemporalPatch - 1) / kTemporalPatch),
                 plan.size.final.height / kPatchSize, plan.size.final.width / kPatchSize};
  visual.report.source_width = facts.width;
  visual.report.source_height = facts.height;
  visual.report.width = plan.size.final.width;
  visual.report.height = plan.size.final.height;
  visual.report.tokens = visual.grid.num_tokens();
  visual.report.sampled_fps = plan.choice.sample_fps;
  visual.report.mode = mode;
  // The evaluation never tells the processor its rate; upstream passes it, in float32.
  if (mode == PreprocessMode::kQwenVlUtils) {
    visual.second_per_grid = static_cast<float>(kTemporalPatch / plan.choice.sample_fps);
  }
  return plan;
}

absl::StatusOr<LoadedVisual> DecoderMediaLoader::LoadVideo(const MediaSource& source,
                                                           const VideoSampling& sampling,
                                                           const LoadControl& control) {
  decoder::OpenBody open{};
  open.kind = decoder::MediaKind::kVideo;
  absl::Duration open_time;
  absl::StatusOr<OpenJob> opened = absl::UnknownError("");
  {
    PhaseTimer timer(&open_time);
    opened = Open(source, open, control);
  }
  VNSA_ASSIGN_OR_RETURN(OpenJob job, std::move(opened));
  auto planned = Plan(job.facts, sampling);
  if (!planned.ok()) {
    job.decoder->CloseJob();
    return planned.status();
  }
  VideoPlan& plan = *planned;
  plan.visual.decode_time = open_time;
  const auto num_frames = static_cast<int64_t>(plan.choice.indices.size());
  VNSA_RETURN_IF_ERROR(job.decoder->Sample(plan.choice.indices,
                                           SlotsFor(job.facts.rgb_bytes, num_frames),
                                           decoder::PixelFormat::kRgb24, job.limits));
  const int64_t patch_bytes = int64_t{plan.visual.grid.h} * plan.visual.grid.w * kPatchDim * 4;
  const bool in_pieces = control.take_piece != nullptr;
  const int64_t piece_patches =
      in_pieces ? std::max<int64_t>(kPieceBytes / patch_bytes, 1) : plan.visual.grid.t;
  VideoPatcher patcher({job.facts.height, job.facts.width}, plan.size, num_frames,
                       static_cast<int>(piece_patches), [&](PatchPiece piece) {
                         if (in_pieces) {
                           // Time that the taker makes it wait is not the decoder's.
                           absl::Duration waited;
                           absl::Status taken;
                           {
                             PhaseTimer timer(&waited);
                             taken = control.take_piece(std::move(piece));
                           }
                           job.limits.timeout += waited;
                           plan.visual.preprocess_time -= waited;  // of ReadFrames' timer
                           return taken;
                         }
                         plan.visual.patches = std::move(piece.patches);
                         return absl::OkStatus();
                       });
  VNSA_RETURN_IF_ERROR(ReadFrames(job, patcher, &plan.visual, control));
  return std::move(plan.visual);
}

absl::Status DecoderMediaLoader::ReadFrames(OpenJob& job, VideoPatcher& patcher,
                                            LoadedVisual* visual, const LoadControl& control) {
  int64_t done = 0;
  while (true) {
    std::optional<DecoderProcess::Frame> frame;
    {
      PhaseTimer timer(&visual->decode_time);
      VNSA_ASSIGN_OR_RETURN(frame, job.decoder->NextFrame(job.limits));
    }
    if (!frame) break;
    PhaseTimer timer(&visual->preprocess_time);
    VNSA_RETURN_IF_ERROR(patcher.AddFrame(frame->pixels));
    job.decoder->Release(*frame);
    ++done;
    if (control.progress) {
      const int64_t total = std::max<int64_t>(done, int64_t{kTemporalPatch} * visual->grid.t);
      control.progress("decode", done, total);
    }
  }
  visual->report.frame_times = job.decoder->FrameTimes();
  visual->report.frames_decoded = job.decoder->counts().frames_decoded;
  PhaseTimer timer(&visual->preprocess_time);
  return patcher.Finish();
}

absl::StatusOr<LoadedVisual> DecoderMediaLoader::PlanVideo(const MediaSource& source,
                                                           const VideoSampling& sampling) {
  decoder::OpenBody open{};
  open.kind = decoder::MediaKind::kVideo;
  const LoadControl control;
  VNSA_ASSIGN_OR_RETURN(OpenJob job, Open(source, open, control));
  auto plan = Plan(job.facts, sampling);
  if (!plan.ok()) {
    job.decoder->CloseJob();
    return plan.status();
  }
  VNSA_RETURN_IF_ERROR(job.decoder->Sample(plan->choice.indices, /*num_slots=*/0,
                                           decoder::PixelFormat::kRgb24, job.limits));
  VNSA_RETURN_IF_ERROR(job.decoder->NextFrame(job.limits).status());
  plan->visual.report.frame_times = job.decoder->FrameTimes();
  return std::move(plan->visual);
}

absl::StatusOr<MediaFacts> DecoderMediaLoader::Probe(const MediaSource& source) {
  const LoadControl control;
  decoder::OpenBody open{};
  open.kind = decoder::MediaKind::kImage;
  auto job = OpenIn(*probers_, source, open, control);
  const bool image = job.ok();
  if (!image) {
    open.kind = decoder::MediaKind::kVideo;
    auto video = OpenIn(*probers_, source, open, control);
    // A damaged picture is told as one: no container was recognised in it.
    if (!video.ok()) {
      const auto info = GetErrorInfo(job.status());
      const bool no_picture = info && info->reason == "MEDIA_UNSUPPORTED";
      return no_picture ? video.status() : job.status();
    }
    job = std::move(video);
  }
  job->decoder->CloseJob();
  const decoder::FactsBody& facts = job->facts;
  MediaFacts found;
  found.image = image;
  found.container = facts.container;
  found.codec = facts.codec;
  found.width = facts.width;
  found.height = facts.height;
  found.duration = absl::Microseconds(facts.duration_us);
  found.average_fps = image ? 0 : RateOf(facts);
  found.packet_count = facts.num_packets;
  return found;
}

decoder::OpenBody DecoderMediaLoader::ImageJob(const ImagePart& image) const {
  const bool eval = ModeOf(image.mode) == PreprocessMode::kLmmsEval;
  decoder::OpenBody open{};
  open.kind = decoder::MediaKind::kImage;
  // The evaluation drops alpha and sends every picture through JPEG; upstream blends on white.
  open.jpeg_again = eval;
  open.alpha_on_white = !eval;
  return open;
}

absl::StatusOr<VisualSize> DecoderMediaLoader::PlanPicture(const decoder::FactsBody& facts,
                                                           const ImagePart& image,
                                                           LoadedVisual* visual) const {
  const PreprocessMode mode = ModeOf(image.mode);
  VNSA_ASSIGN_OR_RETURN(
      const VisualSize size,
      ImageSize({facts.height, facts.width}, mode, {image.min_pixels, image.max_pixels}, options_));
  visual->grid = {1, size.final.height / kPatchSize, size.final.width / kPatchSize};
  visual->report.image = true;
  visual->report.source_width = facts.width;
  visual->report.source_height = facts.height;
  visual->report.width = size.final.width;
  visual->report.height = size.final.height;
  visual->report.tokens = visual->grid.num_tokens();
  visual->report.mode = mode;
  return size;
}

absl::StatusOr<LoadedVisual> DecoderMediaLoader::PlanImage(const ImagePart& image) {
  const LoadControl control;
  VNSA_ASSIGN_OR_RETURN(OpenJob job, Open(image.source, ImageJob(image), control));
  job.decoder->CloseJob();
  LoadedVisual visual;
  VNSA_RETURN_IF_ERROR(PlanPicture(job.facts, image, &visual).status());
  return visual;
}

absl::StatusOr<LoadedVisual> DecoderMediaLoader::LoadImage(const ImagePart& image,
                                                           const LoadControl& control) {
  LoadedVisual visual;
  std::vector<uint8_t> rgb;
  FrameSize source;
  {
    PhaseTimer timer(&visual.decode_time);
    VNSA_ASSIGN_OR_RETURN(OpenJob job, Open(image.source, ImageJob(image), control));
    source = {job.facts.height, job.facts.width};
    auto planned = PlanPicture(job.facts, image, &visual);
    if (!planned.ok()) {
      job.decoder->CloseJob();
      return planned.status();
    }
    VNSA_RETURN_IF_ERROR(
        job.decoder->Sample({0}, /*num_slots=*/1, decoder::PixelFormat::kRgb24, job.limits));
    VNSA_ASSIGN_OR_RETURN(auto frame, job.decoder->NextFrame(job.limits));
    if (frame) {
      rgb.assign(frame->pixels, frame->pixels + frame->bytes);
      VNSA_RETURN_IF_ERROR(job.decoder->NextFrame(job.limits).status());
    }
    VNSA_CHECK_EQ(static_cast<int64_t>(rgb.size()), 3 * source.pixels());
  }
  PhaseTimer timer(&visual.preprocess_time);
  VNSA_ASSIGN_OR_RETURN(
      const VisualSize size,
      ImageSize(source, visual.report.mode, {image.min_pixels, image.max_pixels}, options_));
  rgb = ResizeFixedPoint(rgb.data(), source.height, source.width, size.first.height,
                         size.first.width, FixedPointRules::kPillow);
  rgb = ResizeFixedPoint(rgb.data(), size.first.height, size.first.width, size.final.height,
                         size.final.width, FixedPointRules::kTorchUint8);
  RgbxImage pixels;
  BicubicResizer(size.final.height, size.final.width, size.final.height, size.final.width)
      .ResizeRounded(rgb.data(), &pixels);
  auto patches = std::make_shared<PatchBatch>();
  patches->image = true;
  patches->grid = visual.grid;
  patches->rows.resize(visual.grid.num_patches() * kPatchDim);
  for (int k = 0; k < kTemporalPatch; ++k) WritePatches(pixels, k, patches->rows.data());
  visual.patches = std::move(patches);
  visual.report.frames_decoded = 1;
  return visual;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MediaLoader>> MediaLoader::Create(const MediaOptions& options,
                                                                 const MediaMetrics& metrics) {
  VNSA_CHECK_GT(options.decoder_processes, 0);
  // Every thread of a decoder may compute until the wall clock ends the job.
  DecoderLimits limits{.cpu_seconds =
                           absl::ToInt64Seconds(options.decode_timeout) * kMaxDecoderThreads + 1};
  VNSA_ASSIGN_OR_RETURN(auto pool, DecoderPool::Create(options.decoder_binary,
                                                       options.decoder_processes, limits, metrics));
  // Nobody waits for a probe as for an answer: a crowd of uploads gives way to questions.
  limits.niceness = kProberNiceness;
  VNSA_ASSIGN_OR_RETURN(auto probers,
                        DecoderPool::Create(options.decoder_binary, kProbers, limits, metrics));
  return std::make_unique<DecoderMediaLoader>(options, std::move(pool), std::move(probers));
}

}  // namespace videonsa
