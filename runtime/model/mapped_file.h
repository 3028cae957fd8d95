#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// A file of the model folder, mapped read-only.
///
/// Threads: const access from any.
class MappedFile {
 public:
  /// Maps the regular file `name` of folder `dir`. FAILED_PRECONDITION (MODEL_INVALID) if it is
  /// missing, not a regular file, or leads out of the folder by a link.
  static absl::StatusOr<MappedFile> Open(const std::string& dir, const std::string& name);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& name() const { return name_; }
  absl::string_view bytes() const {
    return absl::string_view(static_cast<const char*>(data_), size_);
  }

 private:
  MappedFile(std::string name, void* data, size_t size)
      : name_(std::move(name)), data_(data), size_(size) {}

  std::string name_;
  void* data_ = nullptr;  // null for an empty file
  size_t size_ = 0;
};

/// FAILED_PRECONDITION with reason MODEL_INVALID: the model folder cannot be served as it is.
/// `file` is a name inside the folder, `tensor` may be empty.
absl::Status ModelInvalid(absl::string_view file, absl::string_view tensor,
                          absl::string_view message);

}  // namespace videonsa
