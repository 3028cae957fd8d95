#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace videonsa {

/// Rights of a caller; a set of them is their sum.
using Scopes = uint8_t;
inline constexpr Scopes kScopeAsk = 1;
inline constexpr Scopes kScopeClips = 2;
inline constexpr Scopes kScopeAdmin = 4;
inline constexpr Scopes kScopeBench = 8;
inline constexpr Scopes kAllScopes = 15;

/// The scope named `name` ("ask", "clips", "admin", "bench"), or 0.
Scopes ScopeNamed(absl::string_view name);

/// Every method of every service, in the order of the table in method.cc.
enum class Method {
  kAsk,
  kAskStream,
  kEstimate,
  kCreateSession,
  kAppendToSession,
  kGetSession,
  kDeleteSession,
  kAskMany,
  kStartUpload,
  kUploadClip,
  kQueryUpload,
  kAbortUpload,
  kImportClip,
  kGetClip,
  kListClips,
  kWatchClip,
  kDeleteClip,
  kGetModel,
  kGetServerStatus,
  kDrain,
  kSetLogLevel,
  kProfile,
  kFlushCaches,
};
inline constexpr int kNumMethods = 23;

/// What is known about a method before it is called.
struct MethodInfo {
  const char* name;      ///< "videonsa.v1.VideoQaService/Ask" and so on
  Scopes any_of;         ///< the caller must hold one of these
  const char* any_text;  ///< the same for people
  bool question;         ///< runs the model: counts against a tenant's questions at once
};

/// The row of `method`.
const MethodInfo& InfoOf(Method method);

inline const char* MethodName(Method method) { return InfoOf(method).name; }

}  // namespace videonsa
