#pragma once

#include "absl/status/status.h"

namespace videonsa {

/// The gRPC side of a stream of `Message`. Called with the source's lock held; must not call back.
template <typename Message>
class StreamWriter {
 public:
  virtual ~StreamWriter() = default;
  /// Requires: no write is in flight.
  virtual void Write(const Message& message) = 0;
  /// Called once, last.
  virtual void End(const absl::Status& status) = 0;
  /// Breaks the transport off: the reader takes nothing.
  virtual void Cut() = 0;
};

/// What feeds a stream; told by the call. Threads: any.
class StreamSource {
 public:
  virtual ~StreamSource() = default;
  /// The write in flight has ended; unless `ok`, the call is over.
  virtual void OnWritten(bool ok) = 0;
  /// Ends the call with `status` and stops the work for it.
  virtual void Cancel(const absl::Status& status) = 0;
  /// The writer dies; nothing is called on it any more.
  virtual void Detach() = 0;
};

}  // namespace videonsa
