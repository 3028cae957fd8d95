#pragma once

#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"

namespace videonsa {

inline std::string TextDataPath(const std::string& file) {
  return std::string(VIDEONSA_TEST_DATA) + "/text/" + file;
}

inline std::string ReadTextData(const std::string& file) {
  std::ifstream in(TextDataPath(file), std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The tokenizer of tests/data/text/small.
inline const Tokenizer& SmallTokenizer() {
  static const Tokenizer* const tokenizer = [] {
    auto loaded = Tokenizer::Load(TextDataPath("small"));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded->release();
  }();
  return *tokenizer;
}

inline std::string ReasonOf(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info.has_value() ? info->reason : "";
}

}  // namespace videonsa
