#include "client/digest.h"

#include <gtest/gtest.h>

#include <random>

namespace videonsa::client {
namespace {

TEST(Digest, Crc32cOfPublishedVectors) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);  // RFC 3720 B.4 check value
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(Digest, Crc32cInPiecesEqualsWhole) {
  std::mt19937 random(7);
  std::string bytes(1000, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  const uint32_t whole = Crc32c(bytes);
  for (size_t cut = 0; cut <= bytes.size(); cut += 13) {
    EXPECT_EQ(Crc32c(bytes.substr(cut), Crc32c(bytes.substr(0, cut))), whole) << cut;
  }
}

TEST(Digest, Sha256OfPublishedVector) {
  Sha256 sha;
  sha.Update("a");
  sha.Update("bc");
  EXPECT_EQ(HexOf(sha.Finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, UuidsHaveVersionAndVariant) {
  const std::string random = RandomUuid();
  EXPECT_EQ(random.size(), 36u);
  EXPECT_EQ(random[14], '4');
  EXPECT_NE(random, RandomUuid());
  const std::string digest(32, '\xff');
  EXPECT_EQ(UuidOfDigest(digest), "ffffffff-ffff-8fff-bfff-ffffffffffff");
  EXPECT_EQ(UuidOfDigest(digest), UuidOfDigest(digest));
}

}  // namespace
}  // namespace videonsa::client
