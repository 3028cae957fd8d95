#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"

namespace videonsa::client {

/// Writes JSON in the order of the calls, indented by two blanks.
///
/// Requires: calls that make up one well-formed value. Numbers that JSON lacks (NaN, Inf) become
///           null; bytes that are not UTF-8 become U+FFFD.
class JsonWriter {
 public:
  /// `indent` false: everything on one line.
  explicit JsonWriter(bool indent = true) : indent_(indent) {}

  JsonWriter& BeginObject();
  JsonWriter& EndObject();
  JsonWriter& BeginArray();
  JsonWriter& EndArray();
  JsonWriter& Key(absl::string_view key);
  JsonWriter& String(absl::string_view value);
  JsonWriter& Number(double value);
  JsonWriter& Integer(int64_t value);
  JsonWriter& Bool(bool value);
  JsonWriter& Null();
  /// A value that is JSON already.
  JsonWriter& Raw(absl::string_view json);

  /// A protobuf message in the project's own JSON form: field names as in the .proto, integers as
  /// numbers, durations as seconds (key + "_s"), timestamps as RFC 3339, enums by name, bytes as
  /// hexadecimal. Fields that are not set are left out.
  JsonWriter& Message(const google::protobuf::Message& message);

  /// The text so far.
  const std::string& text() const { return text_; }

 private:
  void Separate();
  void Newline();
  void Field(const google::protobuf::Message& message,
             const google::protobuf::FieldDescriptor& field);
  void Value(const google::protobuf::Message& message,
             const google::protobuf::FieldDescriptor& field, int index);

  const bool indent_;
  std::string text_;
  std::vector<bool> has_items_;  // one an open object or array
  bool after_key_ = false;
};

/// `text` as a JSON string with quotes.
std::string JsonQuoted(absl::string_view text);

/// Parses one JSON value. Errors: INVALID_ARGUMENT with the parser's words.
absl::StatusOr<google::protobuf::Value> ParseJson(absl::string_view text);

/// The member of an object, or null if it is missing or `value` is no object.
const google::protobuf::Value* Member(const google::protobuf::Value& value, const std::string& key);

/// Member by a dotted path ("latency_s.ttft.p99"); fallback if missing or of another kind.
double NumberAt(const google::protobuf::Value& value, absl::string_view path, double fallback);
std::string StringAt(const google::protobuf::Value& value, absl::string_view path,
                     absl::string_view fallback);

}  // namespace videonsa::client
