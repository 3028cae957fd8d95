#include "tests/golden/golden_case.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace videonsa::golden {
namespace {

using nlohmann::json;

template <typename From, typename To>
std::vector<To> Convert(const std::vector<uint8_t>& bytes) {
  std::vector<To> out(bytes.size() / sizeof(From));
  for (size_t i = 0; i < out.size(); ++i) {
    From value;
    std::memcpy(&value, bytes.data() + i * sizeof(From), sizeof(From));
    out[i] = static_cast<To>(value);
  }
  return out;
}

size_t ElementBytes(const std::string& dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "BF16") return 2;
  if (dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

absl::Status ReadTensor(const std::string& name, const json& entry, const std::string& data,
                        GoldenTensor& tensor) {
  const auto bad = [&name] {
    return absl::InvalidArgumentError(absl::StrCat("bad entry of tensor ", name));
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) {
    return bad();
  }
  tensor.dtype = entry["dtype"].get<std::string>();
  uint64_t count = 1;
  for (const json& dim : entry["shape"]) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > (uint64_t{1} << 31)) return bad();
    tensor.shape.push_back(dim.get<int64_t>());
    count *= dim.get<uint64_t>();
    if (count > (uint64_t{1} << 31)) return bad();
  }
  const json &begin = entry["data_offsets"][0], &end = entry["data_offsets"][1];
  if (!begin.is_number_unsigned() || !end.is_number_unsigned()) return bad();
  const uint64_t from = begin.get<uint64_t>(), to = end.get<uint64_t>();
  if (from > to || to > data.size() || ElementBytes(tensor.dtype) == 0 ||
      to - from != count * ElementBytes(tensor.dtype)) {
    return bad();
  }
  tensor.bytes.assign(data.begin() + from, data.begin() + to);
  return absl::OkStatus();
}

}  // namespace

int64_t GoldenTensor::num_elements() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

std::vector<float> GoldenTensor::Floats() const {
  if (dtype == "F32") return Convert<float, float>(bytes);
  if (dtype == "F64") return Convert<double, float>(bytes);
  VNSA_CHECK(dtype == "BF16") << dtype << " is not floating";
  std::vector<float> out(bytes.size() / 2);
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t bits = (uint32_t{bytes[2 * i + 1]} << 24) | (uint32_t{bytes[2 * i]} << 16);
    std::memcpy(&out[i], &bits, 4);
  }
  return out;
}

std::vector<int64_t> GoldenTensor::Integers() const {
  if (dtype == "I32") return Convert<int32_t, int64_t>(bytes);
  if (dtype == "I64") return Convert<int64_t, int64_t>(bytes);
  VNSA_CHECK(dtype == "U8" || dtype == "BOOL") << dtype << " is not integral";
  return Convert<uint8_t, int64_t>(bytes);
}

const GoldenTensor* GoldenCase::Find(const std::string& tensor) const {
  const auto it = tensors.find(tensor);
  return it == tensors.end() ? nullptr : &it->second;
}

std::vector<std::string> FindFiles(const std::string& dir, const std::string& suffix) {
  namespace fs = std::filesystem;
  std::vector<std::string> found;
  std::error_code error;
  const auto options = fs::directory_options::follow_directory_symlink |
                       fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator it(dir, options, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it.depth() > 16) it.disable_recursion_pending();
    if (it->is_regular_file(ignored) && absl::EndsWith(it->path().string(), suffix)) {
      found.push_back(it->path().string());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf())) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  return std::move(text).str();
}

absl::StatusOr<json> ReadJson(const std::string& path) {
  VNSA_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return absl::InvalidArgumentError(absl::StrCat("not JSON: ", path));
  return parsed;
}

absl::StatusOr<std::map<std::string, GoldenTensor>> ReadSafetensors(const std::string& path) {
  VNSA_ASSIGN_OR_RETURN(const std::string file, ReadFile(path));
  uint64_t header_bytes = 0;
  if (file.size() >= 8) std::memcpy(&header_bytes, file.data(), 8);
  if (file.size() < 8 || header_bytes > file.size() - 8) {
    return absl::InvalidArgumentError(absl::StrCat("bad safetensors header: ", path));
  }
  const json header =
      json::parse(file.begin() + 8, file.begin() + 8 + header_bytes, nullptr, false);
  if (!header.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("bad safetensors header: ", path));
  }
  const std::string data = file.substr(8 + header_bytes);
  std::map<std::string, GoldenTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    VNSA_RETURN_IF_ERROR(ReadTensor(name, entry, data, tensors[name]));
  }
  return tensors;
}

absl::StatusOr<GoldenCase> ReadGoldenCase(const std::string& json_path) {
  const std::filesystem::path path(json_path);
  GoldenCase out;
  out.name = path.stem().string();
  VNSA_ASSIGN_OR_RETURN(out.json, ReadJson(json_path));
  const bool named =
      out.json.is_object() && out.json.contains("file") && out.json["file"].is_string();
  const std::string tensors_path =
      JoinPath(path.parent_path().string(), named ? out.json["file"].get<std::string>()
                                                  : absl::StrCat(out.name, ".safetensors"));
  if (named || std::filesystem::exists(tensors_path)) {
    VNSA_ASSIGN_OR_RETURN(out.tensors, ReadSafetensors(tensors_path));
  }
  return out;
}

std::string JoinPath(const std::string& a, const std::string& b) {
  return (std::filesystem::path(a) / b).string();
}

}  // namespace videonsa::golden
