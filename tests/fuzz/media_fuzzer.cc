// Any bytes as a clip, through the decoder program's own reading and decoding: refused with a
// reason, or frames within the limits. libav itself is not instrumented; in service it runs in the
// sandbox.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/media/decoder/clip.h"
#include "runtime/media/decoder/frame_reader.h"
#include "runtime/media/decoder/frame_writer.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/log.h>
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa::decoder;
  av_log_set_level(AV_LOG_QUIET);
  videonsa::fuzz::MemoryFile file(data, size);
  Input input(file.Release());
  OpenBody limits{};
  limits.kind = MediaKind::kVideo;
  limits.threads = 1;
  limits.max_pixels = 1 << 18;
  limits.max_duration_ms = 60'000;
  limits.max_packets = 2000;
  limits.max_streams = 8;
  limits.stream = -1;
  Clip clip(&input);
  if (clip.Open(limits)) return 0;
  const FactsBody& facts = clip.facts();
  VNSA_CHECK(facts.width > 0 && facts.height > 0) << facts.width << " x " << facts.height;
  VNSA_CHECK(int64_t{facts.width} * facts.height <= limits.max_pixels) << facts.width;
  VNSA_CHECK_EQ(static_cast<uint64_t>(facts.num_packets), clip.packets().size());
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < facts.num_packets && wanted.size() < 4; i += 1 + facts.num_packets / 4) {
    wanted.push_back(i);
  }
  const bool turned = facts.rotation % 180 != 0;
  FrameWriter writer(turned ? facts.height : facts.width, turned ? facts.width : facts.height,
                     facts.rotation);
  std::vector<uint8_t> slot(facts.rgb_bytes + kSlotSlack);
  const size_t places = wanted.size();
  FrameReader reader(&clip, std::move(wanted), [&](uint32_t sequence, const AVFrame& frame) {
    VNSA_CHECK(sequence < places) << sequence;
    writer.WriteRgb(frame, slot.data());
    return true;
  });
  reader.Run(1, limits.max_pixels);
  return 0;
}
