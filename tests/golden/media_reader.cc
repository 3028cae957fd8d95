#include "tests/golden/media_reader.h"

#include <openssl/evp.h>

#include <filesystem>
#include <numeric>

#include "absl/strings/escaping.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/media/media_source.h"

namespace videonsa::golden {
namespace {

constexpr int kSlots = 3;

}  // namespace

std::string DecoderBinary() {
  return (std::filesystem::canonical("/proc/self/exe").parent_path() / "videonsa-decoder").string();
}

absl::StatusOr<std::unique_ptr<MediaLoader>> NewLoader() {
  MediaOptions options;
  options.decoder_binary = DecoderBinary();
  options.decoder_processes = 1;
  return MediaLoader::Create(options);
}

absl::StatusOr<std::unique_ptr<MediaReader>> MediaReader::Open(const std::string& path,
                                                               const Options& options) {
  auto reader = std::make_unique<MediaReader>();
  VNSA_ASSIGN_OR_RETURN(reader->process_, DecoderProcess::Start(DecoderBinary()));
  VNSA_ASSIGN_OR_RETURN(const OwnedFd input, OpenSource(MediaSource{.path = path}));
  const MediaOptions limits;
  decoder::OpenBody open{};
  open.kind = options.kind;
  open.threads = 2;
  open.max_pixels = limits.max_source_pixels;
  open.max_duration_ms = absl::ToInt64Milliseconds(limits.max_clip_duration);
  open.max_packets = 432'000;
  open.max_streams = 16;
  open.stream = options.stream;
  open.reference_order = options.reference_order;
  VNSA_ASSIGN_OR_RETURN(reader->facts_, reader->process_->Open(open, input.get(), {}));
  return reader;
}

absl::StatusOr<std::vector<absl::Duration>> MediaReader::Read(
    const std::vector<int64_t>& indices, decoder::PixelFormat format,
    const std::function<void(const DecoderProcess::Frame& frame)>& take) {
  VNSA_RETURN_IF_ERROR(process_->Sample(indices, kSlots, format, {}));
  while (true) {
    VNSA_ASSIGN_OR_RETURN(const auto frame, process_->NextFrame({}));
    if (!frame) return process_->FrameTimes();
    take(*frame);
    process_->Release(*frame);
  }
}

std::vector<int64_t> AllIndices(int64_t count) {
  std::vector<int64_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

Digest::Digest(const char* algorithm) : context_(EVP_MD_CTX_new()) {
  const EVP_MD* kind = EVP_get_digestbyname(algorithm);
  VNSA_CHECK(kind && EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), kind, nullptr) == 1);
}

Digest::~Digest() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Digest::Update(const void* bytes, size_t count) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes, count);
}

std::string Digest::Finish() {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned count = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), out, &count);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(out), count));
}

}  // namespace videonsa::golden
