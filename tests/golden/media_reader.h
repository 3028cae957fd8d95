#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/media/decoder_process.h"
#include "runtime/media/media_loader.h"

namespace videonsa::golden {

/// Path of the videonsa-decoder that was built beside this program.
std::string DecoderBinary();

/// The product's loader with its default options.
absl::StatusOr<std::unique_ptr<MediaLoader>> NewLoader();

/// One job of a decoder process: its facts and the frames asked for, pixels as the server sees
/// them.
///
/// Threads: one at a time.
class MediaReader {
 public:
  struct Options {
    decoder::MediaKind kind = decoder::MediaKind::kVideo;
    int stream = -1;               ///< -1: the best one
    bool reference_order = false;  ///< frames as the reference reader finds them
  };
  /// Opens `path`; a picture is decoded as Pillow's convert("RGB") would.
  static absl::StatusOr<std::unique_ptr<MediaReader>> Open(const std::string& path,
                                                           const Options& options);

  const decoder::FactsBody& facts() const { return facts_; }
  /// Reads the frames at `indices` (ascending), each handed to `take`; returns their times.
  absl::StatusOr<std::vector<absl::Duration>> Read(
      const std::vector<int64_t>& indices, decoder::PixelFormat format,
      const std::function<void(const DecoderProcess::Frame& frame)>& take);

 private:
  std::unique_ptr<DecoderProcess> process_;
  decoder::FactsBody facts_{};
};

/// 0, 1, ... count - 1.
std::vector<int64_t> AllIndices(int64_t count);

/// Running digest by OpenSSL's name ("md5", "sha256"), lower-case hexadecimal.
class Digest {
 public:
  explicit Digest(const char* algorithm);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void Update(const void* bytes, size_t count);
  std::string Finish();

 private:
  void* context_;  ///< EVP_MD_CTX
};

}  // namespace videonsa::golden
