#include "runtime/model/safetensors.h"

#include <filesystem>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "tests/support/model/model_folder.h"

namespace videonsa {
namespace {

using test::FileTensor;

std::string Wrap(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

absl::Status ParseBytes(const std::string& bytes) {
  return SafetensorsHeader::Parse("x.safetensors", bytes).status();
}

// Refused as MODEL_INVALID, with the file's name and `part` in the message.
void ExpectRefused(const std::string& bytes, const std::string& part) {
  const absl::Status status = ParseBytes(bytes);
  ASSERT_FALSE(status.ok()) << part;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(GetErrorInfo(status).has_value());
  EXPECT_EQ(GetErrorInfo(status)->reason, "MODEL_INVALID");
  EXPECT_TRUE(absl::StrContains(status.message(), "x.safetensors")) << status.message();
  EXPECT_TRUE(absl::StrContains(status.message(), part)) << status.message();
}

TEST(Safetensors, PublishedCases) {
  int good = 0, bad = 0;
  for (const auto& entry : std::filesystem::directory_iterator(VIDEONSA_TEST_DATA "/safetensors")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".safetensors") continue;
    const absl::Status status = ParseBytes(test::ReadFile(entry.path().string()));
    if (absl::StartsWith(name, "ok_")) {
      EXPECT_TRUE(status.ok()) << name << ": " << status;
      ++good;
    } else {
      EXPECT_FALSE(status.ok()) << name;
      ++bad;
    }
  }
  EXPECT_EQ(good, 7);
  EXPECT_EQ(bad, 9);
}

TEST(Safetensors, ReadsTensors) {
  const std::string bytes = test::SafetensorsBytes(
      {{"a", {"F32", {2, 3}, std::string(24, '\1')}}, {"b", {"BF16", {}, std::string(2, '\2')}}});
  const auto header = SafetensorsHeader::Parse("x", bytes);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header->tensors.at("a").dtype, DType::kF32);
  EXPECT_EQ(header->tensors.at("b").num_elements(), 1);
  EXPECT_EQ(bytes[static_cast<size_t>(header->data_offset + header->tensors.at("b").begin)], '\2');
}

TEST(Safetensors, RefusesHostileLengths) {
  std::string huge(16, '\0');
  huge[7] = '\x80';  // 2^63
  ExpectRefused(huge, "9223372036854775808");
  ExpectRefused(std::string(8, '\xff') + "{}", "18446744073709551615");
  ExpectRefused("", "0 bytes");
  ExpectRefused(std::string("\x64\0\0\0\0\0\0\0{}", 10), "100 bytes");
  ExpectRefused(std::string("\0\0\0\0\0\0\0\0", 8), "header of 0");
}

TEST(Safetensors, RefusesBrokenEntries) {
  const auto entry = [](const std::string& fields) {
    return Wrap("{\"t\":" + fields + "}", "12345678");
  };
  ExpectRefused(entry("5"), "tensor t");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2]})"), "data_offsets");
  ExpectRefused(entry(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"), "F31");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), "unknown keys");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "-2");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "2.0");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), "12 bytes");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "[8, 0)");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,9]})"), "[0, 9)");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[-1,7]})"), "two offsets");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]})"),
                "two offsets");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})"),
                "rank 9");
  ExpectRefused(entry(R"({"dtype":"F32","shape":[9223372036854775807,2],"data_offsets":[0,8]})"),
                "2^63");
}

TEST(Safetensors, RefusesGapsOverlapsAndLeftovers) {
  const auto two = [](int a_begin, int a_end, int b_begin, int b_end) {
    return Wrap(
        absl::StrCat(R"({"a":{"dtype":"U8","shape":[)", a_end - a_begin, R"(],"data_offsets":[)",
                     a_begin, ",", a_end, R"(]},"b":{"dtype":"U8","shape":[)", b_end - b_begin,
                     R"(],"data_offsets":[)", b_begin, ",", b_end, "]}}"),
        "12345678");
  };
  EXPECT_TRUE(ParseBytes(two(0, 4, 4, 8)).ok());
  EXPECT_TRUE(ParseBytes(two(5, 8, 0, 5)).ok());
  ExpectRefused(two(0, 4, 3, 7), "overlap");
  ExpectRefused(two(0, 8, 0, 8), "overlap");
  ExpectRefused(two(0, 3, 4, 8), "gap");
  ExpectRefused(two(0, 3, 3, 7), "7 of 8");
}

TEST(Safetensors, RefusesHostileJson) {
  ExpectRefused(Wrap(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                     R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})",
                     "1"),
                "twice");
  ExpectRefused(Wrap(R"({"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}})", "1"),
                "twice");
  ExpectRefused(Wrap("[1,2]", ""), "{");
  ExpectRefused(Wrap("{\"a\":", ""), "JSON");
  ExpectRefused(Wrap("{} {}", ""), "JSON");
  ExpectRefused(Wrap("{\"\xff\":{}}", ""), "JSON");
  ExpectRefused(Wrap("{\"a\":" + std::string(100000, '['), ""), "JSON");
  ExpectRefused(Wrap("{\"a\":" + std::string(50000, '[') + std::string(50000, ']') + "}", ""), "a");
}

TEST(Safetensors, RefusesTooManyTensors) {
  std::string header = "{";
  for (int i = 0; i <= 10001; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",", "\"", i,
                    R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  }
  ExpectRefused(Wrap(header + "}", ""), "10002 tensors");
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string whole = test::SafetensorsBytes({{"a", {"F32", {4}, std::string(16, '\1')}}});
  ASSERT_TRUE(ParseBytes(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseBytes(whole.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(ParseBytes(whole + "x").ok());
}

}  // namespace
}  // namespace videonsa
