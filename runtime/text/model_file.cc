#include "runtime/text/model_file.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/text/tokenizer_definition.h"

namespace videonsa {

absl::Status ModelFileError(absl::string_view file, absl::string_view problem) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {.reason = "MODEL_INVALID", .metadata = {{"file", std::string(file)}}},
                   absl::StrCat(file, ": ", problem));
}

bool HasModelFile(const std::string& dir, const std::string& file) {
  std::error_code error;
  return std::filesystem::is_regular_file(std::filesystem::path(dir) / file, error);
}

absl::StatusOr<std::string> ReadModelFile(const std::string& dir, const std::string& file,
                                          int64_t max_bytes) {
  const std::filesystem::path path = std::filesystem::path(dir) / file;
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return ModelFileError(file, "missing");
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return ModelFileError(file, "unreadable");
  if (size > static_cast<uintmax_t>(max_bytes)) {
    return ModelFileError(file, absl::StrCat(size, " bytes, limit ", max_bytes));
  }
  std::string text(size, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) {
    return ModelFileError(file, absl::StrCat("cannot read ", size, " bytes"));
  }
  return text;
}

absl::StatusOr<nlohmann::json> ParseModelJson(absl::string_view text, absl::string_view file) {
  nlohmann::json parsed =
      nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return ModelFileError(file, "not JSON");
  if (!parsed.is_object()) return ModelFileError(file, "not a JSON object");
  return parsed;
}

}  // namespace videonsa
