#pragma once

#include <array>

#include "server/clip_store/clip_store.h"

namespace videonsa {

struct ClipStore::Metrics {
  explicit Metrics(MetricsRegistry& registry);

  Counter upload_bytes;
  Counter complete, aborted, expired, checksum, quota;  // videonsa_uploads_total by outcome
  Counter deleted_request, deleted_ttl;                 // videonsa_clip_deletions_total by reason
  std::array<Gauge, v1::Clip::State_ARRAYSIZE> clips;   // by state
  Gauge storage_bytes, capacity_bytes;
};

}  // namespace videonsa
