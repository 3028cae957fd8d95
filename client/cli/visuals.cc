#include "client/cli/visuals.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "client/error.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

// What fits into one message beside the text when the server names no limit of its own.
constexpr int64_t kDefaultInlineBytes = 3 << 20;

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void SetSource(const VisualSource& visual, const std::string& clip_name, const std::string& bytes,
               const VisualDelivery& delivery, proto::Part& part) {
  const auto set = [&](auto& input) {
    if (!bytes.empty()) {
      input.set_inline_data(bytes);
    } else if (visual.kind == VisualSource::Kind::kUrl) {
      input.set_url(visual.name);
    } else {
      input.set_clip(clip_name);
    }
  };
  if (visual.image) {
    proto::ImageInput& image = *part.mutable_image();
    set(image);
    image.set_max_pixels(delivery.sampling.max_pixels_per_frame());
    image.set_min_pixels(delivery.sampling.min_pixels_per_frame());
    image.set_mode(delivery.sampling.mode());
  } else {
    set(*part.mutable_clip());
    *part.mutable_clip()->mutable_sampling() = delivery.sampling;
  }
}

void ShowUpload(const Console& console, const UploadProgress& progress, const std::string& name,
                absl::Time begin, int64_t first, std::string& line) {
  const double total = static_cast<double>(std::max<int64_t>(progress.total_bytes, 1));
  const bool hashing = progress.phase == UploadProgress::Phase::kHashing;
  line = absl::StrCat(hashing ? "reading " : "sending ", Ellipsize(name, 24), " ",
                      console.painter().Bar(progress.done_bytes / total, 20),
                      absl::StrFormat(" %3.0f %%", 100 * progress.done_bytes / total));
  if (hashing) return;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const double rate = seconds > 0.2 ? (progress.done_bytes - first) / seconds : 0;
  if (rate > 0) {
    absl::StrAppend(&line, "  ", HumanBytes(rate), "/s, ",
                    HumanDuration(absl::Seconds((total - progress.done_bytes) / rate)), " left");
  }
}

}  // namespace

std::string StateText(proto::Clip::State state) {
  const std::string name = proto::Clip::State_Name(state);
  if (name.empty()) return absl::StrCat("state ", static_cast<int>(state));
  return absl::AsciiStrToLower(absl::StripPrefix(name, "STATE_"));
}

absl::StatusOr<UploadResult> UploadWithProgress(const CommandContext& context, OpenedClient& opened,
                                                const std::string& path, UploadOptions options) {
  Console& console = context.console;
  Uploader uploader(opened.client->upload_stub());
  const std::string name = BaseName(path);
  absl::Time begin;
  int64_t first = -1;
  const auto show = [&](const UploadProgress& progress) {
    if (progress.phase == UploadProgress::Phase::kWaiting) {
      console.Note(absl::StrCat(
          console.Paint(Style::kYellow, "cut off"), " at ", HumanBytes(progress.done_bytes), " of ",
          HumanBytes(progress.total_bytes), " (", CodeName(progress.failure.code()),
          "); going on in ", HumanDuration(progress.wait)));
      first = -1;
      return;
    }
    if (progress.phase == UploadProgress::Phase::kSending && first < 0) {
      first = progress.done_bytes;
      begin = absl::Now();
    }
    std::string line;
    ShowUpload(console, progress, name, begin, first, line);
    console.Status(line, progress.done_bytes == progress.total_bytes);
  };
  options.call = opened.call;
  // One deadline for a whole upload would punish large files; a stuck connection is noticed by
  // keepalive instead.
  options.call.timeout = absl::InfiniteDuration();
  absl::StatusOr<UploadResult> result = uploader.Upload(path, options, show);
  console.ClearStatus();
  return result;
}

absl::StatusOr<proto::Clip> AwaitReady(const CommandContext& context, OpenedClient& opened,
                                       const proto::Clip& clip) {
  absl::StatusOr<proto::Clip> settled = clip;
  if (clip.state() != proto::Clip::STATE_READY && clip.state() != proto::Clip::STATE_FAILED) {
    settled = opened.client->WatchClip(
        clip.name(),
        [&](const proto::Clip& now) {
          context.console.Status(
              absl::StrCat(StateText(now.state()), " ", now.display_name(), " ..."), true);
        },
        opened.call);
    context.console.ClearStatus();
  }
  if (!settled.ok()) return settled.status();
  if (settled->state() == proto::Clip::STATE_FAILED) {
    return LocalError(absl::StatusCode::kFailedPrecondition,
                      settled->error_reason().empty() ? "CLIP_FAILED" : settled->error_reason(),
                      absl::StrCat(settled->name(), " cannot be used: ", settled->error_message()));
  }
  return settled;
}

absl::StatusOr<std::vector<proto::Part>> DeliverVisuals(const CommandContext& context,
                                                        OpenedClient& opened,
                                                        const std::vector<VisualSource>& visuals,
                                                        const VisualDelivery& delivery) {
  int64_t inline_left = kDefaultInlineBytes;
  const bool any_file = std::any_of(visuals.begin(), visuals.end(), [](const VisualSource& v) {
    return v.kind == VisualSource::Kind::kFile;
  });
  if (any_file) {
    absl::StatusOr<proto::ModelInfo> model = opened.client->GetModel(opened.call);
    if (!model.ok()) return model.status();
    const int64_t limit = model->limits().max_inline_clip_bytes();
    if (limit > 0) inline_left = std::min(inline_left, limit);
  }
  std::vector<proto::Part> parts;
  for (const VisualSource& visual : visuals) {
    std::string clip_name = visual.name, bytes;
    if (visual.kind == VisualSource::Kind::kFile) {
      struct stat facts {};
      const bool known = stat(visual.name.c_str(), &facts) == 0;
      if (known && facts.st_size <= inline_left && !delivery.always_upload) {
        absl::StatusOr<std::string> content = ReadFile(visual.name);
        if (!content.ok()) return content.status();
        bytes = *std::move(content);
        inline_left -= static_cast<int64_t>(bytes.size());
      } else {
        auto upload = UploadWithProgress(context, opened, visual.name, {});
        if (!upload.ok()) return upload.status();
        auto clip = AwaitReady(context, opened, upload->clip);
        if (!clip.ok()) return clip.status();
        clip_name = clip->name();
        if (!delivery.quiet) {
          context.console.Note(
              absl::StrCat(upload->already_stored ? "already stored as " : "stored as ",
                           context.console.Paint(Style::kBold, clip_name), " (",
                           HumanBytes(facts.st_size), ")"));
        }
      }
    }
    SetSource(visual, clip_name, bytes, delivery, parts.emplace_back());
  }
  return parts;
}

}  // namespace videonsa::client
