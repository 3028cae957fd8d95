#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "runtime/api/generate_request.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/media/media_loader.h"
#include "runtime/serving/tenant_salts.h"
#include "runtime/telemetry/metric_sets.h"

namespace videonsa {

/// Content identity of a tenant's clip or picture as it would be preprocessed: HMAC of bytes,
/// sampling and mode under the tenant's salt. Equal files of two tenants have different keys, so
/// nothing that is found by key (patches, features) is shared between them, and no time tells one
/// what the other has. All zero if the bytes are not known by digest.
Sha256Digest VisualKey(const Sha256Digest& salt, const VideoPart& part,
                       PreprocessMode default_mode);
Sha256Digest VisualKey(const Sha256Digest& salt, const ImagePart& part,
                       PreprocessMode default_mode);

/// Loads visuals, each once a tenant: equal ones in flight share one load, and recent ones are kept
/// within a budget of bytes.
///
/// Threads: all methods may be called from any thread; Load waits.
class VisualStore {
 public:
  /// `loader` and `clock` outlive it. `cache_bytes` bounds the patches kept beyond their requests.
  VisualStore(MediaLoader* loader, TenantSalts salts, const Clock& clock,
              PreprocessMode default_mode, int64_t cache_bytes, MediaMetrics metrics = {});

  /// The key under which Load finds what was loaded before.
  template <typename VisualPart>
  Sha256Digest KeyOf(absl::string_view tenant, const VisualPart& part) const {
    return VisualKey(salts_.Of(tenant), part, default_mode_);
  }

  struct Loaded {
    LoadedVisual visual;
    Sha256Digest key{};
  };
  /// Errors: as MediaLoader; a load that another request started and gave up is started again.
  absl::StatusOr<Loaded> Load(absl::string_view tenant, const VideoPart& part,
                              const LoadControl& control);
  absl::StatusOr<Loaded> Load(absl::string_view tenant, const ImagePart& part,
                              const LoadControl& control);

  /// Decodes a clip into `control.take_piece`; shares and keeps nothing.
  absl::StatusOr<LoadedVisual> Stream(const VideoPart& part, const LoadControl& control);

  /// Shape and report without patches: from the cache, else from the loader, which decodes nothing.
  absl::StatusOr<LoadedVisual> Plan(absl::string_view tenant, const VideoPart& part);
  absl::StatusOr<LoadedVisual> Plan(absl::string_view tenant, const ImagePart& part);

  int64_t cached_bytes() const;
  /// Calls that wait for another request's load.
  int num_waiting() const;
  /// Loads that were answered from the cache or from another request's load.
  int64_t num_shared() const;

 private:
  // One load under way; guarded by mutex_.
  struct Flight {
    bool done = false;
    absl::StatusOr<LoadedVisual> result = absl::UnknownError("not loaded");
  };
  struct Entry {
    LoadedVisual visual;
    int64_t bytes = 0;
    std::list<Sha256Digest>::iterator lru;
  };
  template <typename LoadPart>
  absl::StatusOr<Loaded> LoadOnce(const Sha256Digest& key, const LoadControl& control,
                                  LoadPart load);
  absl::StatusOr<LoadedVisual> Share(const Sha256Digest& key, const LoadControl& control,
                                     std::shared_ptr<Flight>* lead);
  std::optional<LoadedVisual> Peek(const Sha256Digest& key) const;
  absl::Status Await(const Flight& flight, const LoadControl& control)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const absl::StatusOr<LoadedVisual>& result) const;
  void Land(const Sha256Digest& key, Flight& flight, const absl::StatusOr<LoadedVisual>& result);
  void Remember(const Sha256Digest& key, const LoadedVisual& visual)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  MediaLoader* const loader_;
  const TenantSalts salts_;
  const Clock& clock_;
  const PreprocessMode default_mode_;
  const int64_t cache_bytes_;
  const MediaMetrics metrics_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<Sha256Digest, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Sha256Digest, Entry> cache_ ABSL_GUARDED_BY(mutex_);
  std::list<Sha256Digest> lru_ ABSL_GUARDED_BY(mutex_);  // least recently used first
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t shared_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace videonsa
