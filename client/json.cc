#include "client/json.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/format.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "google/protobuf/util/json_util.h"

namespace videonsa::client {

using google::protobuf::FieldDescriptor;

std::string JsonQuoted(absl::string_view text) {
  const std::string valid = IsUtf8(text) ? std::string(text) : PrintableText(text);
  std::string out = "\"";
  for (const char c : valid) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == 0x7f) {
          absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

void JsonWriter::Newline() {
  if (!indent_) return;
  text_ += '\n';
  text_.append(2 * has_items_.size(), ' ');
}

void JsonWriter::Separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (has_items_.empty()) return;
  if (has_items_.back()) text_ += indent_ ? "," : ", ";
  has_items_.back() = true;
  Newline();
}

JsonWriter& JsonWriter::BeginObject() {
  Separate();
  text_ += '{';
  has_items_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::EndObject() {
  const bool any = has_items_.back();
  has_items_.pop_back();
  if (any) Newline();
  text_ += '}';
  return *this;
}

JsonWriter& JsonWriter::BeginArray() {
  Separate();
  text_ += '[';
  has_items_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::EndArray() {
  const bool any = has_items_.back();
  has_items_.pop_back();
  if (any) Newline();
  text_ += ']';
  return *this;
}

JsonWriter& JsonWriter::Key(absl::string_view key) {
  Separate();
  absl::StrAppend(&text_, JsonQuoted(key), ": ");
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::String(absl::string_view value) {
  Separate();
  text_ += JsonQuoted(value);
  return *this;
}

JsonWriter& JsonWriter::Number(double value) {
  if (!std::isfinite(value)) return Null();
  Separate();
  absl::StrAppend(&text_, absl::StrFormat("%.9g", value));
  return *this;
}

JsonWriter& JsonWriter::Integer(int64_t value) {
  Separate();
  absl::StrAppend(&text_, value);
  return *this;
}

JsonWriter& JsonWriter::Bool(bool value) {
  Separate();
  text_ += value ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::Null() {
  Separate();
  text_ += "null";
  return *this;
}

JsonWriter& JsonWriter::Raw(absl::string_view json) {
  Separate();
  absl::StrAppend(&text_, json);
  return *this;
}

JsonWriter& JsonWriter::Message(const google::protobuf::Message& message) {
  BeginObject();
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) Field(message, *field);
  return EndObject();
}

void JsonWriter::Field(const google::protobuf::Message& message, const FieldDescriptor& field) {
  const bool duration = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
                        field.message_type()->full_name() == "google.protobuf.Duration";
  Key(duration ? absl::StrCat(field.name(), "_s") : field.name());
  if (!field.is_repeated()) {
    Value(message, field, -1);
    return;
  }
  BeginArray();
  const int count = message.GetReflection()->FieldSize(message, &field);
  for (int i = 0; i < count; ++i) Value(message, field, i);
  EndArray();
}

void JsonWriter::Value(const google::protobuf::Message& message, const FieldDescriptor& field,
                       int index) {
  const google::protobuf::Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      Integer(one ? r.GetInt32(message, &field) : r.GetRepeatedInt32(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      Integer(one ? r.GetInt64(message, &field) : r.GetRepeatedInt64(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      Integer(one ? r.GetUInt32(message, &field) : r.GetRepeatedUInt32(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      Separate();
      absl::StrAppend(
          &text_, one ? r.GetUInt64(message, &field) : r.GetRepeatedUInt64(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      Number(one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_FLOAT:
      Number(one ? r.GetFloat(message, &field) : r.GetRepeatedFloat(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      Bool(one ? r.GetBool(message, &field) : r.GetRepeatedBool(message, &field, index));
      break;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number =
          one ? r.GetEnumValue(message, &field) : r.GetRepeatedEnumValue(message, &field, index);
      const auto* name = field.enum_type()->FindValueByNumber(number);
      name != nullptr ? String(name->name()) : Integer(number);
      break;
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text =
          one ? r.GetString(message, &field) : r.GetRepeatedString(message, &field, index);
      String(field.type() == FieldDescriptor::TYPE_BYTES ? absl::BytesToHexString(text) : text);
      break;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const google::protobuf::Message& inner =
          one ? r.GetMessage(message, &field) : r.GetRepeatedMessage(message, &field, index);
      if (const auto* d = dynamic_cast<const google::protobuf::Duration*>(&inner)) {
        Number(static_cast<double>(d->seconds()) + d->nanos() * 1e-9);
      } else if (const auto* t = dynamic_cast<const google::protobuf::Timestamp*>(&inner)) {
        String(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ",
                                absl::FromUnixSeconds(t->seconds()) + absl::Nanoseconds(t->nanos()),
                                absl::UTCTimeZone()));
      } else {
        Message(inner);
      }
      break;
    }
  }
}

absl::StatusOr<google::protobuf::Value> ParseJson(absl::string_view text) {
  google::protobuf::Value value;
  const auto status = google::protobuf::util::JsonStringToMessage(std::string(text), &value);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("not JSON: ", std::string(status.message())));
  }
  return value;
}

const google::protobuf::Value* Member(const google::protobuf::Value& value,
                                      const std::string& key) {
  if (!value.has_struct_value()) return nullptr;
  const auto found = value.struct_value().fields().find(key);
  return found == value.struct_value().fields().end() ? nullptr : &found->second;
}

namespace {

const google::protobuf::Value* At(const google::protobuf::Value& value, absl::string_view path) {
  const google::protobuf::Value* at = &value;
  for (const absl::string_view key : absl::StrSplit(path, '.')) {
    at = Member(*at, std::string(key));
    if (at == nullptr) return nullptr;
  }
  return at;
}

}  // namespace

double NumberAt(const google::protobuf::Value& value, absl::string_view path, double fallback) {
  const google::protobuf::Value* at = At(value, path);
  const bool number = at != nullptr && at->kind_case() == google::protobuf::Value::kNumberValue;
  return number ? at->number_value() : fallback;
}

std::string StringAt(const google::protobuf::Value& value, absl::string_view path,
                     absl::string_view fallback) {
  const google::protobuf::Value* at = At(value, path);
  const bool text = at != nullptr && at->kind_case() == google::protobuf::Value::kStringValue;
  return text ? at->string_value() : std::string(fallback);
}

}  // namespace videonsa::client
