#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/api/generate_request.h"
#include "runtime/serving/runtime.h"
#include "server/clip_store/clip_store.h"
#include "server/options.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// A question that passed every check.
struct ParsedQuestion {
  GenerateRequest request;
  /// Keeps the files of its clips until the question has ended.
  std::vector<std::shared_ptr<void>> holds;
};

/// Turns questions from the wire into requests; refuses every value that is out of range, with the
/// field, the value and the limit, and never changes one.
///
/// Threads: any. Does not wait for the disk.
class QuestionParser {
 public:
  /// Takes a stored clip into use.
  using Resolver = std::function<absl::StatusOr<ClipLease>(const std::string& name)>;
  /// Whether a url may be fetched; if so, the question parses with an empty source in its place.
  using UrlCheck = std::function<absl::Status(const std::string& url)>;

  /// Requires: both outlive the parser.
  QuestionParser(const QuestionLimits& limits, const ModelFacts& model)
      : limits_(limits), model_(model) {}

  /// Errors: INVALID_ARGUMENT (FIELD_INVALID, TOO_MANY_FRAMES, MEDIA_TOO_LARGE), PERMISSION_DENIED
  ///         (URL_NOT_ALLOWED), and those of `resolve`. The session is not looked at.
  absl::StatusOr<ParsedQuestion> Parse(const v1::Question& question, const Resolver& resolve,
                                       const UrlCheck& check_url) const;

 private:
  struct Budget {
    int64_t text_bytes = 0;
    int visuals = 0;
  };
  struct Sources {
    const Resolver& resolve;
    const UrlCheck& check_url;
  };
  absl::Status ParseTurns(const v1::Question& question, const Sources& sources,
                          ParsedQuestion& out) const;
  absl::Status AddPart(const v1::Part& part, const std::string& field, const Sources& sources,
                       Turn& turn, Budget& budget, ParsedQuestion& out) const;
  template <typename Input>
  absl::Status ResolveSource(const Input& input, const std::string& field, const Sources& sources,
                             MediaSource& source, std::vector<std::shared_ptr<void>>& holds) const;
  absl::Status AddText(const std::string& text, const std::string& field, Budget& budget) const;
  absl::StatusOr<VideoSampling> ParseSampling(const v1::VideoSampling& in,
                                              const std::string& field) const;
  absl::Status ParseGeneration(const v1::GenerationConfig& in, GenerationParams& out) const;
  absl::Status ParseAttention(const v1::AttentionConfig& in, AttentionParams& out) const;

  const QuestionLimits& limits_;
  const ModelFacts& model_;
};

}  // namespace videonsa
