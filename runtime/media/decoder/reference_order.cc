#include "runtime/media/decoder/reference_order.h"

#include <algorithm>

namespace videonsa::decoder {
namespace {

// The reference reader's bookkeeping: the index it believes to be at, and the frame that its
// decoder really gives next.
class ReferenceReader {
 public:
  ReferenceReader(const ReferenceReading& clip, const SeekDemuxer& seek)
      : clip_(clip), seek_(seek), count_(static_cast<int64_t>(clip.packets.size())) {
    std::vector<bool> hidden(count_);
    for (int64_t i = 0; i < count_; ++i) {
      if (clip.packets[i].key) keys_.push_back(i);
      if (clip.packets[i].hidden) hidden[IndexOf(clip.packets[i].pts)] = true;
    }
    for (int64_t i = 0; i < count_; ++i) {
      if (!hidden[i]) shown_.push_back(i);
    }
  }

  int64_t Read(int64_t index) {
    if (believed_ != index) SeekAccurate(index);
    if (overrun_) {
      overrun_ = false;
      return key_frame_;
    }
    if (next_ >= num_shown()) return last_ >= 0 ? last_ : shown_.back();
    ++believed_;
    last_ = shown_[next_++];
    return last_;
  }

 private:
  int64_t KeyBefore(int64_t index) const {
    if (keys_.empty() || index <= keys_[0]) return 0;
    return *(std::upper_bound(keys_.begin(), keys_.end(), index) - 1);
  }

  void Seek(int64_t index) {
    if (believed_ == index) return;
    last_ = -1;
    const bool backward = believed_ > index;
    int64_t place = seek_(clip_.sorted_pts[index], backward);
    if (place < 0 && !backward) place = seek_(clip_.sorted_pts[index], /*backward=*/true);
    if (place < 0) return;
    // Decoding starts at this packet; what is shown before it is never seen.
    const int64_t first = IndexOf(clip_.packets[place].pts);
    next_ = std::lower_bound(shown_.begin(), shown_.end(), first) - shown_.begin();
    believed_ = index;
  }

  int64_t num_shown() const { return static_cast<int64_t>(shown_.size()); }

  int64_t IndexOf(int64_t pts) const {
    return std::lower_bound(clip_.sorted_pts.begin(), clip_.sorted_pts.end(), pts) -
           clip_.sorted_pts.begin();
  }

  void Skip(int64_t frames) {
    frames = std::max<int64_t>(std::min(count_ - believed_, frames), 0);
    believed_ += frames;
    next_ = std::min(next_ + frames, num_shown());
  }

  void SeekAccurate(int64_t index) {
    const int64_t key = KeyBefore(index);
    overrun_ = false;
    if (key == KeyBefore(believed_) && index >= believed_) {
      Skip(index - believed_);
      return;
    }
    Seek(0);
    Seek(key);
    // It decodes one frame to see whether it is where it believes to be.
    key_frame_ = shown_[std::min(next_, num_shown() - 1)];
    next_ = std::min(next_ + 1, num_shown());
    if (key_frame_ == believed_) {
      ++believed_;
      if (index > key) {
        Skip(index - believed_);
      } else {
        overrun_ = true;
      }
      return;
    }
    believed_ = key_frame_ + 1;
    if (believed_ < index) {
      Skip(index - believed_);
    } else {
      Seek(key);
      Skip(index - key);
    }
  }

  const ReferenceReading& clip_;
  const SeekDemuxer& seek_;
  const int64_t count_;
  std::vector<int64_t> keys_;   // places in decode order
  std::vector<int64_t> shown_;  // presentation indices that are not hidden
  int64_t believed_ = 0;
  int64_t next_ = 0;       // place in shown_
  int64_t last_ = -1;      // last frame returned since the last seek
  int64_t key_frame_ = 0;  // the frame decoded to check a seek
  bool overrun_ = false;   // that frame is the one asked for
};

}  // namespace

bool MissesFrames(const std::vector<PacketInfo>& packets, bool shows_leading) {
  int64_t key_pts = INT64_MIN;
  bool all_hidden = true, misses = false;
  for (const PacketInfo& packet : packets) {
    all_hidden &= packet.hidden;
    misses |= packet.hidden || (!shows_leading && !packet.key && packet.pts < key_pts);
    if (packet.key) key_pts = packet.pts;
  }
  return misses && !all_hidden;
}

std::vector<int64_t> ReferenceFrames(const ReferenceReading& clip,
                                     const std::vector<int64_t>& indices, const SeekDemuxer& seek) {
  ReferenceReader reader(clip, seek);
  std::vector<int64_t> frames;
  for (int64_t index : indices) {
    const int64_t frame = reader.Read(index);
    frames.push_back(frames.empty() ? frame : std::max(frame, frames.back()));
  }
  return frames;
}

}  // namespace videonsa::decoder
