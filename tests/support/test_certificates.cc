#include "tests/support/test_certificates.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/check.h"

namespace videonsa::testing {
namespace {

constexpr long kHour = 3600;

template <typename Write>
std::string PemOf(Write write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  VNSA_CHECK(write(bio) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string pem(data, static_cast<size_t>(size));
  BIO_free(bio);
  return pem;
}

std::string CertPem(X509* cert) {
  return PemOf([cert](BIO* bio) { return PEM_write_bio_X509(bio, cert); });
}

void AddExtension(X509* cert, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, cert, cert, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  VNSA_CHECK(extension != nullptr) << value;
  X509_add_ext(cert, extension, -1);
  X509_EXTENSION_free(extension);
}

// An unsigned certificate of `name` for `key`.
X509* NewCertificate(EVP_PKEY* key, const std::string& name, int hours) {
  static long serial = 0;
  X509* const cert = X509_new();
  X509_set_version(cert, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(cert), -1000 * kHour);
  X509_gmtime_adj(X509_getm_notAfter(cert), hours * kHour);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_pubkey(cert, key);
  return cert;
}

}  // namespace

struct TestAuthority::State {
  EVP_PKEY* key = nullptr;
  X509* cert = nullptr;
};

TestAuthority::TestAuthority() : state_(std::make_unique<State>()) {
  state_->key = EVP_EC_gen("P-256");
  state_->cert = NewCertificate(state_->key, "test authority", 24);
  X509_set_issuer_name(state_->cert, X509_get_subject_name(state_->cert));
  AddExtension(state_->cert, NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(state_->cert, NID_key_usage, "critical,keyCertSign");
  VNSA_CHECK(X509_sign(state_->cert, state_->key, EVP_sha256()) > 0);
  cert_ = CertPem(state_->cert);
}

TestAuthority::~TestAuthority() {
  X509_free(state_->cert);
  EVP_PKEY_free(state_->key);
}

TestCertificate TestAuthority::Issue(const std::vector<std::string>& dns_names, int hours) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const cert = NewCertificate(key, dns_names.front(), hours);
  X509_set_issuer_name(cert, X509_get_subject_name(state_->cert));
  AddExtension(cert, NID_subject_alt_name,
               absl::StrJoin(dns_names, ",", [](std::string* out, const std::string& name) {
                 absl::StrAppend(out, "DNS:", name);
               }));
  VNSA_CHECK(X509_sign(cert, state_->key, EVP_sha256()) > 0);
  TestCertificate out;
  out.cert = CertPem(cert);
  out.key = PemOf([key](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  });
  X509_free(cert);
  EVP_PKEY_free(key);
  return out;
}

}  // namespace videonsa::testing
