#pragma once

#include <grpcpp/generic/generic_stub.h>

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "runtime/base/hash.h"
#include "tests/server/test_server.h"

namespace videonsa {

inline void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::trunc) << text;
}

/// A line of the access file's list of tokens.
inline std::string TokenLine(const std::string& token, const std::string& tenant,
                             const std::string& scopes, const std::string& more = "") {
  return absl::StrCat("  - {sha256: ", HexOf(Sha256Of(token)), ", tenant: ", tenant, ", scopes: [",
                      scopes, "]", more, "}\n");
}

inline std::string TokenOfTenant(const std::string& tenant) {
  return absl::StrCat("token-of-tenant-", tenant);
}

/// A server whose access file is at path(); every tenant in `tenants` may ask and store clips.
class AccessServer {
 public:
  explicit AccessServer(const std::string& file, ServerOptions options = TestServer::Options(),
                        const FakeOptions& fake = FakeOptions()) {
    WriteText(path(), file);
    options.access.file = path();
    server_ = std::make_unique<TestServer>(fake, options);
  }

  std::string path() const { return folder_.path() + "/access.yaml"; }
  std::string folder() const { return folder_.path(); }
  TestServer& operator*() { return *server_; }
  TestServer* operator->() { return server_.get(); }

  static std::string Tenants(const std::vector<std::string>& tenants,
                             const std::string& scopes = "ask, clips") {
    std::string file = "tokens:\n";
    for (const std::string& tenant : tenants) {
      absl::StrAppend(&file, TokenLine(TokenOfTenant(tenant), tenant, scopes));
    }
    return file;
  }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<TestServer> server_;
};

/// One call of any method, with an empty message; nothing is known about its types.
class RawCall : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  /// `method`: "/package.Service/Method".
  static grpc::Status Run(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                          const std::string& token = "") {
    RawCall call;
    if (!token.empty()) call.context_.AddMetadata("authorization", "Bearer " + token);
    grpc::GenericStub stub(channel);
    stub.PrepareBidiStreamingCall(&call.context_, method, grpc::StubOptions(), &call);
    call.StartWriteLast(&call.empty_, grpc::WriteOptions());
    call.StartRead(&call.reply_);
    call.StartCall();
    call.done_.WaitForNotification();
    return call.status_;
  }

  void OnReadDone(bool ok) override {
    if (ok) StartRead(&reply_);
  }
  void OnDone(const grpc::Status& status) override {
    status_ = status;
    done_.Notify();
  }

 private:
  RawCall() : empty_(&slice_, 1) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  }

  grpc::ClientContext context_;
  grpc::Slice slice_;
  grpc::ByteBuffer empty_, reply_;
  grpc::Status status_;
  absl::Notification done_;
};

}  // namespace videonsa
