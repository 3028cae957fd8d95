#include "server/access/tls_files.h"

#include <grpc/grpc.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"
#include "server/yaml_reader.h"

namespace videonsa {
namespace {

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* object) const { Free(object); }
};
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;
struct BioFreer {
  void operator()(BIO* bio) const { BIO_free(bio); }
};

absl::Status Invalid(absl::string_view option, absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "TLS_FILE_INVALID",
                   absl::StrCat("--", option, ": ", what));
}

std::unique_ptr<BIO, BioFreer> BioOf(const std::string& pem) {
  return std::unique_ptr<BIO, BioFreer>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// Refuses to ask a person for the password of an encrypted key.
int NoPassword(char*, int, int, void*) { return -1; }

absl::Status CheckAuthorities(const std::string& pem) {
  const auto bio = BioOf(pem);
  int count = 0;
  while (Certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))) ++count;
  ERR_clear_error();
  return count > 0 ? absl::OkStatus() : Invalid("tls-client-ca", "holds no PEM certificate");
}

absl::Status CheckPair(const std::string& cert_pem, const std::string& key_pem) {
  const Certificate cert(PEM_read_bio_X509(BioOf(cert_pem).get(), nullptr, nullptr, nullptr));
  const Key key(PEM_read_bio_PrivateKey(BioOf(key_pem).get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (cert == nullptr) return Invalid("tls-cert", "holds no PEM certificate");
  if (key == nullptr) return Invalid("tls-key", "holds no PEM key without a password");
  const bool fits = X509_check_private_key(cert.get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) return Invalid("tls-key", "is not the key of the certificate");
  if (X509_cmp_current_time(X509_get0_notAfter(cert.get())) < 0) {
    return Invalid("tls-cert", "the certificate has expired");
  }
  return absl::OkStatus();
}

}  // namespace

// gRPC's C++ classes offer no reload that keeps a working set when the new one is broken; the C
// interface below them asks before each handshake.
class ReloadingCredentials : public grpc::ServerCredentials {
 public:
  ReloadingCredentials(const TlsFiles* files, TlsFiles::Listener* listener) {
    grpc_ssl_server_credentials_options* const options =
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            files->options_.client_ca.empty()
                ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
            TlsFiles::Fetch, listener);
    credentials_ = grpc_ssl_server_credentials_create_with_options(options);
    VNSA_CHECK(credentials_ != nullptr);
  }
  ~ReloadingCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    VNSA_CHECK(false) << "calls are authorised one by one, not by connection";
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* credentials_;
};

TlsFiles::TlsFiles(const TlsOptions& options, MetricsRegistry& metrics)
    : options_(options),
      reloaded_(metrics.AddCounter("videonsa_config_reloads_total",
                                   "Files read again after a change.",
                                   {{"file", "tls"}, {"outcome", "ok"}})),
      refused_(metrics.AddCounter("videonsa_config_reloads_total",
                                  "Files read again after a change.",
                                  {{"file", "tls"}, {"outcome", "refused"}})) {}

absl::StatusOr<std::unique_ptr<TlsFiles>> TlsFiles::Open(const TlsOptions& options,
                                                         MetricsRegistry& metrics) {
  std::unique_ptr<TlsFiles> files(new TlsFiles(options, metrics));
  VNSA_ASSIGN_OR_RETURN(Content content, Read(options));
  absl::MutexLock lock(&files->mutex_);
  files->content_ = std::move(content);
  return files;
}

absl::StatusOr<TlsFiles::Content> TlsFiles::Read(const TlsOptions& options) {
  if (options.cert.empty()) return Invalid("tls-cert", "must be set with tls-key");
  if (options.key.empty()) return Invalid("tls-key", "must be set with tls-cert");
  Content content;
  VNSA_ASSIGN_OR_RETURN(content.cert, ReadSmallFile(options.cert));
  VNSA_ASSIGN_OR_RETURN(content.key, ReadSmallFile(options.key));
  VNSA_RETURN_IF_ERROR(CheckPair(content.cert, content.key));
  if (!options.client_ca.empty()) {
    VNSA_ASSIGN_OR_RETURN(content.client_ca, ReadSmallFile(options.client_ca));
    VNSA_RETURN_IF_ERROR(CheckAuthorities(content.client_ca));
  }
  return content;
}

absl::Status TlsFiles::Reload() {
  absl::StatusOr<Content> content = Read(options_);
  absl::MutexLock lock(&mutex_);
  const bool news = content.status() != last_;
  last_ = content.status();
  if (!content.ok()) {
    if (news) {
      refused_.Add();
      Log(LogLevel::kError, "certificate files refused, the old ones stay",
          {{"why", content.status().message()}});
    }
    return content.status();
  }
  if (*content == content_) return absl::OkStatus();
  content_ = *std::move(content);
  ++version_;
  reloaded_.Add();
  Log(LogLevel::kInfo, "certificate files reloaded");
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> TlsFiles::Credentials() {
  absl::MutexLock lock(&mutex_);
  listeners_.push_back(std::make_unique<Listener>(Listener{this}));
  return std::make_shared<ReloadingCredentials>(this, listeners_.back().get());
}

grpc_ssl_certificate_config_reload_status TlsFiles::Fetch(
    void* self, grpc_ssl_server_certificate_config** config) {
  auto* const listener = static_cast<Listener*>(self);
  TlsFiles* const files = listener->files;
  absl::MutexLock lock(&files->mutex_);
  if (listener->fetched == files->version_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {files->content_.key.c_str(),
                                           files->content_.cert.c_str()};
  // gRPC wants authorities even where it asks clients for nothing; the server's own certificate
  // will do, as nobody is compared with it then.
  const std::string& authorities = files->content_.client_ca;
  *config = grpc_ssl_server_certificate_config_create(
      authorities.empty() ? pair.cert_chain : authorities.c_str(), &pair, 1);
  listener->fetched = files->version_;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

}  // namespace videonsa
