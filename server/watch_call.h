#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "server/open_call.h"
#include "server/server_core.h"

namespace videonsa {

/// One WatchClip call: the clip as it is, then every change until READY or FAILED. A slow reader
/// gets the latest state only.
///
/// Invariants: one write in flight; Finish is called once.
/// Lifetime:   gRPC's until OnDone; the store holds only the shared Link, weakly.
class WatchCall : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  WatchCall(ServerCore& core, grpc::CallbackServerContext& context,
            const grpc::ByteBuffer& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  class Link;

  OpenCall call_;
  grpc::ByteBuffer message_;  // of the write in flight
  std::shared_ptr<Link> link_;
};

}  // namespace videonsa
