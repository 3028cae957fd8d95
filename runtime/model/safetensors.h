#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/common/dtype.h"
#include "runtime/model/mapped_file.h"

namespace videonsa {

/// One tensor of a file, as its header describes it.
struct TensorEntry {
  std::string dtype_name;      ///< as in the header, e.g. "BF16", "F8_E4M3"
  std::optional<DType> dtype;  ///< unset for types that only the format knows
  std::vector<int64_t> shape;
  int64_t begin = 0;  ///< byte offsets from the end of the header; begin <= end <= data size
  int64_t end = 0;

  int64_t num_elements() const;
};

/// The header of a .safetensors file after every rule of the format has been checked.
///
/// Rules: header of 2 bytes to 100 MB that fits the file; one JSON object in UTF-8 that starts with
/// `{`; no duplicate key; known types; at most 10,000 tensors, rank <= 8; end - begin equals
/// shape x element size without overflow; the tensors cover the data without gap or overlap and end
/// at the end of the file.
struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;  ///< without __metadata__
  int64_t data_offset = 0;                     ///< first data byte in the file

  /// Errors: FAILED_PRECONDITION (MODEL_INVALID) names `file_name`, the tensor and the numbers.
  static absl::StatusOr<SafetensorsHeader> Parse(absl::string_view file_name,
                                                 absl::string_view file);
};

/// A mapped .safetensors file.
class SafetensorsFile {
 public:
  /// Errors: as MappedFile::Open and SafetensorsHeader::Parse.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& dir, const std::string& name);

  const std::string& name() const { return file_.name(); }
  const std::map<std::string, TensorEntry>& tensors() const { return header_.tensors; }
  /// Bytes of a tensor of this file. Not aligned beyond what the writer chose.
  const char* Data(const TensorEntry& entry) const {
    return file_.bytes().data() + header_.data_offset + entry.begin;
  }
  absl::string_view bytes() const { return file_.bytes(); }

 private:
  SafetensorsFile(MappedFile file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}

  MappedFile file_;
  SafetensorsHeader header_;
};

}  // namespace videonsa
