#include "runtime/executor/feature_cache.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {

std::shared_ptr<VisualFeatures> FeatureCache::Find(const Sha256Digest& key, const PatchGrid& grid) {
  const auto found = known_.find(key);
  if (found == known_.end()) return nullptr;
  std::shared_ptr<VisualFeatures> features = found->second.lock();
  if (features == nullptr) {
    known_.erase(found);
    return nullptr;
  }
  if (!(features->grid == grid)) return nullptr;
  const auto place = std::find(recent_.begin(), recent_.end(), features);
  if (place != recent_.end()) recent_.splice(recent_.begin(), recent_, place);
  return features;
}

void FeatureCache::Add(const Sha256Digest& key, const std::shared_ptr<VisualFeatures>& features) {
  VNSA_CHECK(features->complete());
  if (key == Sha256Digest{}) return;
  std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
  known_[key] = features;
  recent_.push_front(features);
  bytes_ += static_cast<int64_t>(features->buffer.bytes());
  while (bytes_ > max_bytes_) {
    bytes_ -= static_cast<int64_t>(recent_.back()->buffer.bytes());
    recent_.pop_back();
  }
}

}  // namespace videonsa
