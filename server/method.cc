#include "server/method.h"

#include <array>

namespace videonsa {
namespace {

constexpr Scopes kAny = kAllScopes;
constexpr char kAnyText[] = "ask, clips, bench or admin";

// The one table of who may call what. A test walks the services' descriptors, so a method without a
// row fails it.
constexpr std::array<MethodInfo, kNumMethods> kMethods = {{
    {"videonsa.v1.VideoQaService/Ask", kScopeAsk, "ask", true},
    {"videonsa.v1.VideoQaService/AskStream", kScopeAsk, "ask", true},
    {"videonsa.v1.VideoQaService/Estimate", kScopeAsk, "ask", false},
    {"videonsa.v1.VideoQaService/CreateSession", kScopeAsk, "ask", true},
    {"videonsa.v1.VideoQaService/AppendToSession", kScopeAsk, "ask", true},
    {"videonsa.v1.VideoQaService/GetSession", kScopeAsk, "ask", false},
    {"videonsa.v1.VideoQaService/DeleteSession", kScopeAsk, "ask", false},
    {"videonsa.v1.VideoQaService/AskMany", kScopeAsk, "ask", true},
    {"videonsa.v1.ClipService/StartUpload", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/UploadClip", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/QueryUpload", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/AbortUpload", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/ImportClip", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/GetClip", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/ListClips", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/WatchClip", kScopeClips, "clips", false},
    {"videonsa.v1.ClipService/DeleteClip", kScopeClips, "clips", false},
    {"videonsa.v1.ServerService/GetModel", kAny, kAnyText, false},
    {"videonsa.v1.ServerService/GetServerStatus", kAny, kAnyText, false},
    {"videonsa.admin.v1.AdminService/Drain", kScopeAdmin, "admin", false},
    {"videonsa.admin.v1.AdminService/SetLogLevel", kScopeAdmin, "admin", false},
    {"videonsa.admin.v1.AdminService/Profile", kScopeAdmin, "admin", false},
    {"videonsa.admin.v1.AdminService/FlushCaches", kScopeAdmin, "admin", false},
}};

}  // namespace

const MethodInfo& InfoOf(Method method) { return kMethods[static_cast<size_t>(method)]; }

Scopes ScopeNamed(absl::string_view name) {
  if (name == "ask") return kScopeAsk;
  if (name == "clips") return kScopeClips;
  if (name == "admin") return kScopeAdmin;
  if (name == "bench") return kScopeBench;
  return 0;
}

}  // namespace videonsa
