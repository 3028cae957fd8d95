#include "runtime/model/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxTensors = 10'000;
constexpr size_t kMaxRank = 8;

struct KnownType {
  const char* name;
  int64_t bytes;
  std::optional<DType> dtype;
};
const KnownType kTypes[] = {
    {"F64", 8, {}},          {"I64", 8, DType::kI64},
    {"U64", 8, {}},          {"F32", 4, DType::kF32},
    {"I32", 4, DType::kI32}, {"U32", 4, {}},
    {"F16", 2, DType::kF16}, {"BF16", 2, DType::kBF16},
    {"I16", 2, {}},          {"U16", 2, {}},
    {"I8", 1, {}},           {"U8", 1, DType::kU8},
    {"BOOL", 1, {}},         {"F8_E4M3", 1, {}},
    {"F8_E5M2", 1, {}},
};

const KnownType* FindType(const std::string& name) {
  for (const KnownType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

// Builds the document and remembers the first key that an object holds twice, which the plain
// parser would silently drop.
class UniqueKeys {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
        open_.emplace_back();
        break;
      case json::parse_event_t::object_end:
        open_.pop_back();
        break;
      case json::parse_event_t::key:
        if (!open_.back().emplace(parsed.get<std::string>(), 0).second && duplicate.empty()) {
          duplicate = absl::StrCat("\"", parsed.get<std::string>(), "\"");
        }
        break;
      default:
        break;
    }
    max_depth = std::max(max_depth, depth);
    return depth <= 8;  // deeper values are dropped; the shape of an entry is at depth 2
  }

  std::string duplicate;
  int max_depth = 0;

 private:
  std::vector<std::map<std::string, int>> open_;
};

// A non-negative integer of the header, or nothing (fractions, signs, beyond int64).
std::optional<int64_t> Natural(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const uint64_t number = value.get<uint64_t>();
  if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(number);
}

struct EntryReader {
  absl::string_view file;
  int64_t data_bytes;

  absl::Status Fail(const std::string& tensor, absl::string_view message) const {
    return ModelInvalid(file, tensor, message);
  }

  absl::StatusOr<std::vector<int64_t>> Shape(const std::string& name, const json& value) const {
    if (!value.is_array()) return Fail(name, "shape is not an array");
    if (value.size() > kMaxRank) {
      return Fail(name, absl::StrCat("rank ", value.size(), ", limit ", kMaxRank));
    }
    std::vector<int64_t> shape;
    for (const json& dim : value) {
      const std::optional<int64_t> size = Natural(dim);
      if (!size) return Fail(name, absl::StrCat("dimension ", dim.dump(), " is not a size"));
      shape.push_back(*size);
    }
    return shape;
  }

  absl::StatusOr<TensorEntry> Read(const std::string& name, const json& value) const {
    if (!value.is_object()) return Fail(name, "entry is not an object");
    for (const char* key : {"dtype", "shape", "data_offsets"}) {
      if (!value.contains(key)) return Fail(name, absl::StrCat("entry lacks ", key));
    }
    if (value.size() != 3) return Fail(name, "entry has unknown keys");
    TensorEntry entry;
    if (!value["dtype"].is_string()) return Fail(name, "dtype is not a string");
    entry.dtype_name = value["dtype"].get<std::string>();
    const KnownType* type = FindType(entry.dtype_name);
    if (type == nullptr) return Fail(name, absl::StrCat("unknown dtype ", entry.dtype_name));
    entry.dtype = type->dtype;
    VNSA_ASSIGN_OR_RETURN(entry.shape, Shape(name, value["shape"]));
    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !Natural(offsets[0]) ||
        !Natural(offsets[1])) {
      return Fail(name, absl::StrCat("data_offsets ", offsets.dump(), " are not two offsets"));
    }
    entry.begin = *Natural(offsets[0]);
    entry.end = *Natural(offsets[1]);
    if (entry.begin > entry.end || entry.end > data_bytes) {
      return Fail(name, absl::StrCat("data offsets [", entry.begin, ", ", entry.end,
                                     ") outside the ", data_bytes, " data bytes"));
    }
    int64_t bytes = type->bytes;
    for (int64_t dim : entry.shape) {
      if (__builtin_mul_overflow(bytes, dim, &bytes)) return Fail(name, "shape overflows 2^63");
    }
    if (bytes != entry.end - entry.begin) {
      return Fail(name, absl::StrCat("shape needs ", bytes, " bytes, offsets give ",
                                     entry.end - entry.begin));
    }
    return entry;
  }
};

// Tensors sorted by offset must cover [0, data_bytes) exactly.
absl::Status CheckCoverage(absl::string_view file,
                           const std::map<std::string, TensorEntry>& tensors, int64_t data_bytes) {
  std::vector<std::pair<const TensorEntry*, const std::string*>> order;
  for (const auto& [name, entry] : tensors) order.emplace_back(&entry, &name);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  int64_t covered = 0;
  for (const auto& [entry, name] : order) {
    if (entry->begin != covered) {
      return ModelInvalid(file, *name,
                          absl::StrCat(entry->begin < covered ? "overlap" : "gap", ": begins at ",
                                       entry->begin, ", data is covered up to ", covered));
    }
    covered = entry->end;
  }
  if (covered != data_bytes) {
    return ModelInvalid(file, "",
                        absl::StrCat("tensors cover ", covered, " of ", data_bytes, " data bytes"));
  }
  return absl::OkStatus();
}

// Length of the header in bytes, after its own checks.
absl::StatusOr<uint64_t> HeaderLength(absl::string_view file_name, absl::string_view file) {
  if (file.size() < 8) {
    return ModelInvalid(file_name, "",
                        absl::StrCat("file of ", file.size(), " bytes, at least 8 needed"));
  }
  uint64_t length = 0;
  for (int byte = 7; byte >= 0; --byte) {
    length = length << 8 | static_cast<uint8_t>(file[static_cast<size_t>(byte)]);
  }
  if (length > kMaxHeaderBytes) {
    return ModelInvalid(file_name, "",
                        absl::StrCat("header of ", length, " bytes, limit ", kMaxHeaderBytes));
  }
  if (length > file.size() - 8) {
    return ModelInvalid(
        file_name, "",
        absl::StrCat("header of ", length, " bytes in a file of ", file.size(), " bytes"));
  }
  if (length < 2) {
    return ModelInvalid(file_name, "", absl::StrCat("header of ", length, " bytes"));
  }
  return length;
}

}  // namespace

int64_t TensorEntry::num_elements() const {
  int64_t product = 1;
  for (int64_t dim : shape) product *= dim;
  return product;
}

absl::StatusOr<SafetensorsHeader> SafetensorsHeader::Parse(absl::string_view file_name,
                                                           absl::string_view file) {
  VNSA_ASSIGN_OR_RETURN(const uint64_t length, HeaderLength(file_name, file));
  const absl::string_view text = file.substr(8, length);
  // The published tests allow white space before the object, the wording of the format does not;
  // nothing else may come first.
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == absl::string_view::npos || text[first] != '{') {
    return ModelInvalid(file_name, "", "header does not start with {");
  }
  UniqueKeys keys;
  const json document = json::parse(text.begin(), text.end(), std::ref(keys),
                                    /*allow_exceptions=*/false);
  if (document.is_discarded() || !document.is_object()) {
    return ModelInvalid(file_name, "", "header is not a JSON object in UTF-8");
  }
  if (!keys.duplicate.empty()) {
    return ModelInvalid(file_name, "", absl::StrCat("header holds key ", keys.duplicate, " twice"));
  }
  if (document.size() > kMaxTensors + 1) {
    return ModelInvalid(file_name, "",
                        absl::StrCat(document.size(), " tensors, limit ", kMaxTensors));
  }
  SafetensorsHeader header;
  header.data_offset = static_cast<int64_t>(8 + length);
  const int64_t data_bytes = static_cast<int64_t>(file.size()) - header.data_offset;
  const EntryReader reader{file_name, data_bytes};
  for (const auto& [name, value] : document.items()) {
    if (name == "__metadata__") continue;
    VNSA_ASSIGN_OR_RETURN(TensorEntry entry, reader.Read(name, value));
    header.tensors.emplace(name, std::move(entry));
  }
  VNSA_RETURN_IF_ERROR(CheckCoverage(file_name, header.tensors, data_bytes));
  return header;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& dir,
                                                      const std::string& name) {
  VNSA_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(dir, name));
  VNSA_ASSIGN_OR_RETURN(SafetensorsHeader header,
                        SafetensorsHeader::Parse(file.name(), file.bytes()));
  return SafetensorsFile(std::move(file), std::move(header));
}

}  // namespace videonsa
