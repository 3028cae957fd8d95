#include "runtime/model/json_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/model/mapped_file.h"

namespace videonsa {
namespace {

using nlohmann::json;

constexpr size_t kMaxConfigBytes = 16 << 20;

std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = absl::StrCat(text.substr(0, 60), "...");
  return text;
}

bool InRange(const json& value, int64_t min, int64_t max) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    return number <= static_cast<uint64_t>(max) && static_cast<int64_t>(number) >= min;
  }
  if (!value.is_number_integer()) return false;
  const int64_t number = value.get<int64_t>();
  return number >= min && number <= max;
}

std::string NotInRange(const json& value, int64_t min, int64_t max) {
  return absl::StrCat(Shown(value), " is not an integer in [", min, ", ", max, "]");
}

}  // namespace

JsonFields::JsonFields(const json* object, std::string file, std::string prefix,
                       absl::Status* status)
    : object_(object != nullptr && object->is_object() ? object : nullptr),
      file_(std::move(file)),
      prefix_(std::move(prefix)),
      status_(status) {}

const json* JsonFields::Find(const char* key) const {
  if (object_ == nullptr) return nullptr;
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

JsonFields JsonFields::Object(const char* key) const {
  const json* value = Find(key);
  if (value != nullptr && !value->is_object()) Fail(key, "is not an object");
  return JsonFields(value, file_, absl::StrCat(prefix_, key, "."), status_);
}

void JsonFields::Fail(const char* key, const std::string& message) const {
  if (status_->ok()) {
    *status_ = ModelInvalid(file_, "", absl::StrCat(prefix_, key, ": ", message));
  }
}

void JsonFields::Int64(const char* key, int64_t min, int64_t max, int64_t* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!InRange(*value, min, max)) return Fail(key, NotInRange(*value, min, max));
  *out = value->get<int64_t>();
}

void JsonFields::Int(const char* key, int64_t min, int64_t max, int* out) const {
  int64_t wide = *out;
  Int64(key, min, max, &wide);
  *out = static_cast<int>(wide);
}

void JsonFields::Float(const char* key, double min, double max, float* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_number() || !(value->get<double>() >= min && value->get<double>() <= max)) {
    return Fail(key, absl::StrCat(Shown(*value), " is not a number in [", min, ", ", max, "]"));
  }
  *out = static_cast<float>(value->get<double>());
}

void JsonFields::Bool(const char* key, bool* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_boolean()) return Fail(key, absl::StrCat(Shown(*value), " is not true or false"));
  *out = value->get<bool>();
}

void JsonFields::String(const char* key, std::string* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_string()) return Fail(key, absl::StrCat(Shown(*value), " is not a string"));
  *out = value->get<std::string>();
}

void JsonFields::Ints(const char* key, int64_t min, int64_t max, std::vector<int>* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_array()) return Fail(key, absl::StrCat(Shown(*value), " is not an array"));
  out->clear();
  for (const json& item : *value) {
    if (!InRange(item, min, max)) return Fail(key, NotInRange(item, min, max));
    out->push_back(static_cast<int>(item.get<int64_t>()));
  }
}

void JsonFields::IntOrInts(const char* key, int64_t min, int64_t max,
                           std::vector<int32_t>* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (value->is_array()) return Ints(key, min, max, out);
  if (!InRange(*value, min, max)) return Fail(key, NotInRange(*value, min, max));
  *out = {static_cast<int32_t>(value->get<int64_t>())};
}

void JsonFields::Floats(const char* key, size_t count, float* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_array() || value->size() != count) {
    return Fail(key, absl::StrCat(Shown(*value), " is not an array of ", count, " numbers"));
  }
  for (size_t i = 0; i < count; ++i) {
    if (!(*value)[i].is_number()) return Fail(key, absl::StrCat(Shown((*value)[i]), " in it"));
    out[i] = (*value)[i].get<float>();
  }
}

void JsonFields::Strings(const char* key, std::vector<std::string>* out) const {
  const json* value = Find(key);
  if (value == nullptr) return;
  if (!value->is_array()) return Fail(key, absl::StrCat(Shown(*value), " is not an array"));
  out->clear();
  for (const json& item : *value) {
    if (!item.is_string()) return Fail(key, absl::StrCat(Shown(item), " is not a string"));
    out->push_back(item.get<std::string>());
  }
}

absl::StatusOr<json> ReadJsonObject(const std::string& dir, const std::string& name) {
  VNSA_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(dir, name));
  if (file.bytes().size() > kMaxConfigBytes) {
    return ModelInvalid(name, "",
                        absl::StrCat(file.bytes().size(), " bytes, limit ", kMaxConfigBytes));
  }
  json document = json::parse(file.bytes().begin(), file.bytes().end(), nullptr,
                              /*allow_exceptions=*/false);
  if (document.is_discarded() || !document.is_object()) {
    return ModelInvalid(name, "", "not a JSON object");
  }
  return document;
}

}  // namespace videonsa
