#include "client/openai/content_parts.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/openai/api_error.h"
#include "google/protobuf/util/json_util.h"

namespace videonsa::openai {
namespace {

using nlohmann::json;

// What `detail: "low"` means elsewhere: a picture seen in 512 x 512 pixels.
constexpr int kLowDetailPixels = 512 * 512;

absl::Status Invalid(const std::string& where, absl::string_view what) {
  return BadArgument(where, "FIELD_INVALID", absl::StrCat(where, ": ", what));
}

// Decodes "data:[type];base64,[bytes]" without its scheme.
absl::Status DecodeData(absl::string_view rest, const std::string& where, std::string& bytes) {
  const size_t comma = rest.find(',');
  if (comma == absl::string_view::npos) return Invalid(where, "data URL without a comma");
  const absl::string_view type = rest.substr(0, comma);
  if (!absl::EndsWithIgnoreCase(type, ";base64")) {
    return Invalid(where, "data URL must be base64: data:TYPE;base64,DATA");
  }
  if (!absl::Base64Unescape(rest.substr(comma + 1), &bytes)) {
    return Invalid(where, "data URL holds no valid base64");
  }
  if (bytes.empty()) return Invalid(where, "data URL is empty");
  return absl::OkStatus();
}

// Sets one of the three sources that clips and pictures have.
template <typename Input>
absl::Status SetSource(const std::string& url, const DataUrls& data, const std::string& where,
                       Input& input) {
  const absl::string_view whole = data.Original(url);
  if (absl::StartsWithIgnoreCase(whole, "data:")) {
    return DecodeData(whole.substr(5), where, *input.mutable_inline_data());
  }
  if (absl::StartsWith(url, "clips/")) {
    input.set_clip(url);
    return absl::OkStatus();
  }
  if (absl::StartsWithIgnoreCase(url, "https://") || absl::StartsWithIgnoreCase(url, "http://")) {
    input.set_url(url);
    return absl::OkStatus();
  }
  return Invalid(where, "must be a data:, https: or http: URL, or clips/ID");
}

// Fields of a protobuf message from a JSON object, under their names in the .proto.
absl::Status MergeFields(const json& fields, const std::string& where,
                         google::protobuf::Message& message) {
  if (fields.empty()) return absl::OkStatus();
  const auto status = google::protobuf::util::JsonStringToMessage(fields.dump(), &message);
  if (status.ok()) return absl::OkStatus();
  return Invalid(where,
                 absl::StrCat("is not understood: ", std::string(status.message()).substr(0, 200)));
}

// "url": "…" or {"url": "…", more}: the URL, and what stands beside it.
absl::Status SplitUrl(const json& value, const std::string& where, std::string& url, json& rest) {
  rest = json::object();
  if (value.is_string()) {
    url = value.get<std::string>();
    return absl::OkStatus();
  }
  if (!value.is_object()) return Invalid(where, "must be an object with a url");
  const auto found = value.find("url");
  if (found == value.end() || !found->is_string()) {
    return Invalid(absl::StrCat(where, ".url"), "must be a text");
  }
  url = found->get<std::string>();
  for (const auto& [key, item] : value.items()) {
    if (key != "url" && !item.is_null()) rest[key] = item;
  }
  return absl::OkStatus();
}

absl::Status AddVideo(const json& value, const DataUrls& data, const std::string& where,
                      v1::Part& part) {
  std::string url;
  json rest;
  if (absl::Status status = SplitUrl(value, where, url, rest); !status.ok()) return status;
  v1::ClipInput& clip = *part.mutable_clip();
  if (absl::Status status = MergeFields(rest, where, *clip.mutable_sampling()); !status.ok()) {
    return status;
  }
  return SetSource(url, data, absl::StrCat(where, ".url"), clip);
}

absl::Status AddImage(const json& value, const DataUrls& data, const std::string& where,
                      v1::Part& part) {
  std::string url;
  json rest;
  if (absl::Status status = SplitUrl(value, where, url, rest); !status.ok()) return status;
  v1::ImageInput& image = *part.mutable_image();
  if (const auto detail = rest.find("detail"); detail != rest.end()) {
    if (*detail == "low") {
      image.set_max_pixels(kLowDetailPixels);
    } else if (*detail != "auto" && *detail != "high") {
      return Invalid(absl::StrCat(where, ".detail"), "must be auto, low or high");
    }
    rest.erase("detail");
  }
  for (const auto& [key, item] : rest.items()) {
    if (key != "max_pixels" && key != "min_pixels" && key != "mode") {
      return BadArgument(absl::StrCat(where, ".", key), "UNKNOWN_PARAMETER",
                         absl::StrCat(where, ".", key, ": no such argument"));
    }
  }
  if (absl::Status status = MergeFields(rest, where, image); !status.ok()) return status;
  return SetSource(url, data, absl::StrCat(where, ".url"), image);
}

absl::Status AddPart(const json& item, const DataUrls& data, const std::string& where,
                     v1::Turn& turn) {
  if (!item.is_object()) return Invalid(where, "must be an object with a type");
  const auto type = item.find("type");
  if (type == item.end() || !type->is_string()) {
    return Invalid(absl::StrCat(where, ".type"), "must be a text");
  }
  const std::string name = type->get<std::string>();
  if (name != "text" && name != "image_url" && name != "video_url") {
    return BadArgument(absl::StrCat(where, ".type"), "UNSUPPORTED_PARAMETER",
                       absl::StrCat(where, ".type: is ", name.substr(0, 64),
                                    ", must be text, image_url or video_url"));
  }
  for (const auto& [key, value] : item.items()) {
    if (key != "type" && key != name && !value.is_null()) {
      return BadArgument(absl::StrCat(where, ".", key), "UNKNOWN_PARAMETER",
                         absl::StrCat(where, ".", key, ": no such argument"));
    }
  }
  const auto value = item.find(name);
  const std::string field = absl::StrCat(where, ".", name);
  if (value == item.end()) return Invalid(field, "is missing");
  if (name == "video_url") return AddVideo(*value, data, field, *turn.add_parts());
  if (name == "image_url") return AddImage(*value, data, field, *turn.add_parts());
  if (!value->is_string()) return Invalid(field, "must be a text");
  turn.add_parts()->set_text(value->get<std::string>());
  return absl::OkStatus();
}

}  // namespace

absl::Status AddContent(const json& content, const std::string& where, const DataUrls& data,
                        v1::Turn& turn) {
  if (content.is_string()) {
    turn.add_parts()->set_text(content.get<std::string>());
    return absl::OkStatus();
  }
  if (!content.is_array() || content.empty()) {
    return Invalid(where, "must be a text or an array of parts");
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const absl::Status status = AddPart(content[i], data, absl::StrCat(where, "[", i, "]"), turn);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TextOf(const json& content, const std::string& where, std::string& text) {
  v1::Turn turn;
  if (absl::Status status = AddContent(content, where, DataUrls(), turn); !status.ok())
    return status;
  text.clear();
  for (const v1::Part& part : turn.parts()) {
    if (part.content_case() != v1::Part::kText) {
      return Invalid(where, "may hold text only");
    }
    text += part.text();
  }
  return absl::OkStatus();
}

}  // namespace videonsa::openai
