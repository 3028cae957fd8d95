#include "runtime/model/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "kernels/common/bf16.h"
#include "nlohmann/json.hpp"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/model/json_fields.h"

namespace videonsa {
namespace {

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSingleName[] = "model.safetensors";
constexpr size_t kMaxShards = 4096;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Index of the first element that is NaN or Inf, or -1. The exponent bits are all ones.
template <typename Word>
int64_t FirstNonFinite(const char* data, int64_t count, Word exponent) {
  constexpr int64_t kRun = 4096;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = std::min(count, begin + kRun);
    int bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      Word word;
      std::memcpy(&word, data + i * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
      bad |= (word & exponent) == exponent;
    }
    if (bad == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      Word word;
      std::memcpy(&word, data + i * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
      if ((word & exponent) == exponent) return i;
    }
  }
  return -1;
}

int64_t FirstNonFinite(const char* data, int64_t count, DType dtype) {
  if (dtype == DType::kF32) return FirstNonFinite<uint32_t>(data, count, 0x7F800000u);
  return FirstNonFinite<uint16_t>(data, count, dtype == DType::kBF16 ? 0x7F80u : 0x7C00u);
}

// As above for the matrix that `slice` was cut from: its element.
int64_t FirstNonFinite(const TensorView& slice) {
  const char* data = static_cast<const char*>(slice.data);
  if (slice.row_stride() == slice.cols()) {
    return FirstNonFinite(data, slice.num_elements(), slice.dtype);
  }
  for (int64_t row = 0; row < slice.rows(); ++row) {
    const int64_t begin = row * slice.row_stride();
    const int64_t bad = FirstNonFinite(data + begin * static_cast<int64_t>(SizeOf(slice.dtype)),
                                       slice.cols(), slice.dtype);
    if (bad >= 0) return begin + bad;
  }
  return -1;
}

// The slice of [shape[0], rest] over compact data, and where in it the slice begins.
TensorView ViewOf(void* data, DType dtype, const std::vector<int64_t>& shape,
                  const TensorSlice& slice, int64_t* first = nullptr) {
  const int64_t rows = shape.empty() ? 1 : shape[0];
  int64_t columns = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) columns *= shape[axis];
  const int64_t limit = slice.axis == 0 ? rows : columns;
  const int64_t end = slice.end < 0 ? limit : slice.end;
  VNSA_CHECK(0 <= slice.begin && slice.begin <= end && end <= limit)
      << slice.begin << " to " << end << " of " << limit;
  const int64_t count = end - slice.begin;
  const int64_t begin = slice.axis == 0 ? slice.begin * columns : slice.begin;
  if (first != nullptr) *first = begin;
  if (data != nullptr)
    data = static_cast<char*>(data) + begin * static_cast<int64_t>(SizeOf(dtype));
  return MatrixView(data, dtype, slice.axis == 0 ? count : rows, slice.axis == 0 ? columns : count,
                    columns);
}

bool IsPlainName(const std::string& name) {
  return !name.empty() && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name != "." && name != "..";
}

}  // namespace

std::string CanonicalName(const std::string& file_name) {
  absl::string_view name = file_name;
  if (absl::ConsumePrefix(&name, "model.language_model.")) return std::string(name);
  absl::ConsumePrefix(&name, "model.");
  return std::string(name);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  if (access((dir + "/" + kIndexName).c_str(), F_OK) == 0) {
    VNSA_RETURN_IF_ERROR(checkpoint->OpenIndexed(dir));
  } else {
    VNSA_RETURN_IF_ERROR(checkpoint->AddFile(dir, kSingleName));
  }
  return checkpoint;
}

absl::Status Checkpoint::OpenIndexed(const std::string& dir) {
  VNSA_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonObject(dir, kIndexName));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    return ModelInvalid(kIndexName, "", "weight_map is missing");
  }
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainName(file.get<std::string>())) {
      return ModelInvalid(kIndexName, tensor, "its file is not a plain name in the model folder");
    }
    shards[file.get<std::string>()].insert(tensor);
  }
  if (shards.size() > kMaxShards) {
    return ModelInvalid(kIndexName, "", absl::StrCat(shards.size(), " shards, limit ", kMaxShards));
  }
  for (const auto& [file, names] : shards) {
    VNSA_RETURN_IF_ERROR(AddFile(dir, file));
    const auto& held = files_.back()->tensors();
    for (const std::string& name : names) {
      if (held.count(name) == 0) {
        return ModelInvalid(file, name, "missing, the index places it here");
      }
    }
    for (const auto& [name, entry] : held) {
      if (names.count(name) == 0) return ModelInvalid(file, name, "not in the index");
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddFile(const std::string& dir, const std::string& name) {
  VNSA_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(dir, name));
  files_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
  for (const auto& [tensor, entry] : files_.back()->tensors()) {
    VNSA_RETURN_IF_ERROR(AddTensor(*files_.back(), tensor, entry));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddTensor(const SafetensorsFile& file, const std::string& name,
                                   const TensorEntry& entry) {
  if (!tensors_.emplace(CanonicalName(name), Place{&file, &entry, name}).second) {
    return ModelInvalid(file.name(), name, "a tensor of the same meaning exists already");
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> Checkpoint::Load(const std::string& name,
                                            const std::vector<int64_t>& shape,
                                            const TensorSlice& slice) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return ModelInvalid("", name, absl::StrCat("missing, shape ", ShapeText(shape), " expected"));
  }
  const Place& place = found->second;
  if (place.entry->shape != shape) {
    return ModelInvalid(
        place.file->name(), place.file_name,
        absl::StrCat("shape ", ShapeText(place.entry->shape), ", expected ", ShapeText(shape)));
  }
  const std::optional<DType> dtype = place.entry->dtype;
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
    return ModelInvalid(
        place.file->name(), place.file_name,
        absl::StrCat("dtype ", place.entry->dtype_name, ", expected F32, BF16 or F16"));
  }
  int64_t first = 0;
  const TensorView view =
      ViewOf(const_cast<char*>(place.file->Data(*place.entry)), *dtype, shape, slice, &first);
  const int64_t bad = FirstNonFinite(view);
  if (bad >= 0) {
    return ModelInvalid(place.file->name(), place.file_name,
                        absl::StrCat("NaN or Inf at element ", first + bad));
  }
  loaded_.insert(name);
  return view;
}

absl::Status Checkpoint::CheckAllLoaded() const {
  for (const auto& [name, place] : tensors_) {
    if (loaded_.count(name) == 0) {
      return ModelInvalid(place.file->name(), place.file_name, "not a tensor of this model");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Sha256Digest> Checkpoint::Digest(const std::string& dir) const {
  VNSA_ASSIGN_OR_RETURN(const MappedFile config, MappedFile::Open(dir, "config.json"));
  std::map<std::string, absl::string_view> parts = {{config.name(), config.bytes()}};
  for (const auto& file : files_) parts.emplace(file->name(), file->bytes());
  Sha256 hash;
  for (const auto& [name, bytes] : parts) {
    hash.Update(absl::StrCat(name, "\n", bytes.size(), "\n"));
    hash.Update(bytes);
  }
  return hash.Finish();
}

absl::StatusOr<TensorView> DummyWeights::Load(const std::string& name,
                                              const std::vector<int64_t>& shape,
                                              const TensorSlice& slice) {
  if (on_device_) return ViewOf(nullptr, DType::kBF16, shape, slice);
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  std::vector<uint16_t>& values = buffers_.emplace_back(static_cast<size_t>(count));
  if (shape.size() == 1) {
    const bool bias = absl::EndsWith(name, ".bias");
    std::fill(values.begin(), values.end(), RoundToBf16(bias ? 0.0f : 1.0f));
  } else {
    // xorshift64 (Marsaglia 2003), seeded by the name; four values a step.
    uint64_t state = 0x9E3779B97F4A7C15u ^ Crc32c(name);
    constexpr float kScale = 0.02f * 1.7320508f * 2 / 65536;
    for (size_t i = 0; i < values.size(); i += 4) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      for (size_t j = 0; j < 4 && i + j < values.size(); ++j) {
        const int32_t centred = static_cast<int32_t>(state >> (16 * j) & 0xFFFF) - 32768;
        values[i + j] = RoundToBf16(static_cast<float>(centred) * kScale);
      }
    }
  }
  return ViewOf(values.data(), DType::kBF16, shape, slice);
}

}  // namespace videonsa
