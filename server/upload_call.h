#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/synchronization/mutex.h"
#include "server/clip_store/clip_store.h"
#include "server/open_call.h"
#include "server/server_core.h"
#include "server/watchdog.h"
#include "videonsa/v1/clip.pb.h"

namespace videonsa {

/// One UploadClip call: reads a message, has a worker put it on disk, reads the next. So at most
/// one message a call is in memory, and a slow disk slows the sender.
///
/// Ends by itself when the sender is idle or too slow; what arrived stays committed.
///
/// Invariants: Finish is called once, by the first End; at most one of {read, disk work} runs.
/// Lifetime:   gRPC's until OnDone; workers and watchdog hold only the shared Link.
class UploadCall : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  UploadCall(ServerCore& core, grpc::CallbackServerContext& context, grpc::ByteBuffer* response,
             const Gauge& active);

  void OnReadDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class Link;

  OpenCall call_;
  grpc::ByteBuffer* const response_;  // gRPC's, valid until Finish
  const Gauge active_;
  grpc::ByteBuffer message_;  // of the read in flight
  std::shared_ptr<Link> link_;
};

}  // namespace videonsa
