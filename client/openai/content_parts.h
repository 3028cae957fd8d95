#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/openai/data_urls.h"
#include "nlohmann/json.hpp"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::openai {

/// Translates the content of one message into parts of a turn: a text, or an array of `text`,
/// `image_url` and `video_url` parts.
///
/// `where` is the argument's name for errors, "messages[3].content". A `video_url` object may hold
/// the fields of VideoSampling beside its `url`; an `image_url` object `detail`, `max_pixels` and
/// `min_pixels`. URLs: "data:…;base64,…", "clips/ID", "http://…", "https://…".
/// `data` holds the URLs that were taken out of the body. Errors: INVALID_ARGUMENT naming the part.
absl::Status AddContent(const nlohmann::json& content, const std::string& where,
                        const DataUrls& data, v1::Turn& turn);

/// The text of a message that may hold nothing else (system, assistant). Errors as above.
absl::Status TextOf(const nlohmann::json& content, const std::string& where, std::string& text);

}  // namespace videonsa::openai
