#pragma once

#include <string>

#include "runtime/api/generate_result.h"
#include "runtime/api/media_facts.h"
#include "runtime/serving/runtime.h"
#include "server/options.h"
#include "videonsa/v1/clip.pb.h"
#include "videonsa/v1/server.pb.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// Build version, "0.1.0".
std::string ServerVersion();

/// Wire form of a finished answer without text and log-probabilities.
v1::AskResult ToProto(const GenerateResult& result, const ReportParams& report,
                      const ModelFacts& model);

v1::EstimateResponse ToProto(const EstimateResult& result);

v1::PromptTokens ToProto(const PromptTokens& tokens);

v1::TokenLogprob ToProto(const TokenLogprob& token);

v1::MediaInfo ToProto(const MediaFacts& facts);

v1::ModelInfo ToProto(const ModelFacts& model, const ServerOptions& options);

}  // namespace videonsa
