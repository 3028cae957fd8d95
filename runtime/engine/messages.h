#pragma once

#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "runtime/engine/request.h"
#include "runtime/engine/worker.h"

namespace videonsa {

/// A new request; its prompt follows.
struct SubmitMessage {
  Request request;
  int ahead = 0;
};
/// The media stage has the prompt ready.
struct ReadyMessage {
  RequestId id;
  std::unique_ptr<PreparedPrompt> prompt;
};
/// A patch source of the request has something new to say. At most one is under way a request.
struct MediaMessage {
  RequestId id;
};
/// The media stage cannot make the prompt.
struct FailMessage {
  RequestId id;
  absl::Status status;
};
/// A stop string was found in the answer; the receiver of tokens knows which and where.
struct StopMessage {
  RequestId id;
};
struct CancelMessage {
  RequestId id;
};
/// Ends everything that is left with what it has.
struct EndAllMessage {};
/// A session is over: its pages are let go.
struct UnpinMessage {
  SessionId session;
};
/// Look at the clock.
struct TickMessage {};

/// What the engine thread takes from its inbox. Messages about requests that have ended are
/// dropped.
using EngineMessage =
    std::variant<SubmitMessage, ReadyMessage, MediaMessage, FailMessage, StopMessage, CancelMessage,
                 EndAllMessage, UnpinMessage, TickMessage, SequencesReleased, StepDone,
                 WorkerFailed, WorkerRestarted>;

}  // namespace videonsa
