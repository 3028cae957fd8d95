#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/reporter.h"

namespace videonsa::golden {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void WriteSafetensors(const std::string& path, const std::string& header, const std::string& data) {
  std::ofstream out(path, std::ios::binary);
  const uint64_t size = header.size();
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << header << data;
}

std::string Scratch(const std::string& name) {
  const std::string dir = testing::TempDir() + "golden_support_test";
  std::filesystem::create_directories(dir);
  return dir + "/" + name;
}

TEST(ReporterTest, ToleranceIsAbsolutePlusRelative) {
  std::ostringstream out;
  Reporter reporter(out);
  reporter.ExpectClose("c", "t", {1000.0f}, {1000.05f});
  reporter.ExpectClose("c", "t", {0.0f}, {0.00009f});
  EXPECT_EQ(reporter.failed(), 0);
  reporter.ExpectClose("c", "t", {1000.0f}, {1000.2f});
  reporter.ExpectClose("c", "t", {0.0f}, {0.0002f});
  EXPECT_EQ(reporter.failed(), 2);
}

TEST(ReporterTest, NanAndInfinityNeverPassByAccident) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  std::ostringstream out;
  Reporter reporter(out);
  reporter.ExpectClose("c", "nan", {nan}, {nan});
  reporter.ExpectClose("c", "nan", {nan}, {1.0f});
  reporter.ExpectClose("c", "nan", {1.0f}, {nan});
  reporter.ExpectClose("c", "inf", {1.0f}, {inf});
  reporter.ExpectClose("c", "inf", {-inf}, {inf});
  EXPECT_EQ(reporter.failed(), 4 + 1) << out.str();
  reporter.ExpectClose("c", "inf", {inf}, {inf});
  EXPECT_EQ(reporter.passed(), 1);
}

TEST(ReporterTest, LengthsMustAgree) {
  std::ostringstream out;
  Reporter reporter(out);
  reporter.ExpectClose("c", "t", {1.0f, 2.0f}, {1.0f});
  reporter.ExpectEqual("c", "t", std::vector<int32_t>{1}, std::vector<int64_t>{1, 2});
  EXPECT_EQ(reporter.failed(), 2);
  EXPECT_THAT(out.str(), HasSubstr("1 values, expected 2"));
}

TEST(GoldenCaseTest, ReadsEveryType) {
  const float f = 1.5f;
  const int32_t i = -7;
  const int64_t l = int64_t{1} << 40;
  std::string data(19, '\0');
  std::memcpy(&data[0], &f, 4);
  std::memcpy(&data[4], &i, 4);
  std::memcpy(&data[8], &l, 8);
  data[16] = '\x80', data[17] = '\x3f', data[18] = '\xff';  // bf16 1.0, u8 255
  WriteSafetensors(Scratch("all.safetensors"),
                   R"({"__metadata__":{"a":"b"},
                       "f":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                       "i":{"dtype":"I32","shape":[1,1],"data_offsets":[4,8]},
                       "l":{"dtype":"I64","shape":[],"data_offsets":[8,16]},
                       "b":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},
                       "u":{"dtype":"U8","shape":[1],"data_offsets":[18,19]}})",
                   data);
  std::ofstream(Scratch("all.json")) << R"({"name": "x"})";
  const auto golden = ReadGoldenCase(Scratch("all.json"));
  ASSERT_TRUE(golden.ok()) << golden.status();
  EXPECT_THAT(golden->Find("f")->Floats(), ElementsAre(1.5f));
  EXPECT_THAT(golden->Find("i")->Integers(), ElementsAre(-7));
  EXPECT_THAT(golden->Find("l")->Integers(), ElementsAre(l));
  EXPECT_THAT(golden->Find("b")->Floats(), ElementsAre(1.0f));
  EXPECT_THAT(golden->Find("u")->Integers(), ElementsAre(255));
  EXPECT_EQ(golden->Find("z"), nullptr);
}

TEST(GoldenCaseTest, RefusesBadFiles) {
  WriteSafetensors(Scratch("short.safetensors"),
                   R"({"f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234");
  EXPECT_FALSE(ReadSafetensors(Scratch("short.safetensors")).ok());
  WriteSafetensors(Scratch("shape.safetensors"),
                   R"({"f":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234");
  EXPECT_FALSE(ReadSafetensors(Scratch("shape.safetensors")).ok());
  std::ofstream(Scratch("text.safetensors")) << "x";
  EXPECT_FALSE(ReadSafetensors(Scratch("text.safetensors")).ok());
  EXPECT_FALSE(ReadSafetensors(Scratch("missing.safetensors")).ok());
}

}  // namespace
}  // namespace videonsa::golden
