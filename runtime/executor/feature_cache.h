#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>

#include "runtime/base/hash.h"
#include "runtime/device/device.h"
#include "runtime/step/patch_batch.h"

namespace videonsa {

/// Output rows of the vision tower for one visual.
struct VisualFeatures {
  PatchGrid grid;
  DeviceBuffer buffer;
  TensorView rows;      ///< [grid.num_tokens(), hidden], F32 or BF16
  int frames_done = 0;  ///< temporal patches whose rows are final

  bool complete() const { return frames_done == grid.t; }
};

/// Finds finished features by the content of their visual: those that a running sequence still
/// holds, and the last ones up to a number of bytes.
///
/// Owner: the worker thread.
class FeatureCache {
 public:
  explicit FeatureCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  /// Finished features of an equal key and grid, or null. An all-zero key never matches.
  std::shared_ptr<VisualFeatures> Find(const Sha256Digest& key, const PatchGrid& grid);
  /// Remembers finished features.
  void Add(const Sha256Digest& key, const std::shared_ptr<VisualFeatures>& features);

 private:
  const int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::map<Sha256Digest, std::weak_ptr<VisualFeatures>> known_;
  std::list<std::shared_ptr<VisualFeatures>> recent_;  // newest first
};

}  // namespace videonsa
