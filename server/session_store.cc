#include "server/session_store.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/proto_time.h"
#include "server/quota_error.h"

namespace videonsa {
namespace {

constexpr absl::string_view kPrefix = "sessions/";
constexpr size_t kMaxNameBytes = 64;
constexpr absl::Duration kBusyRetry = absl::Seconds(1);

absl::Status SessionNotFound(absl::string_view name) {
  return MakeError(
      absl::StatusCode::kNotFound,
      ErrorInfo{.reason = "SESSION_NOT_FOUND",
                .metadata = {{"resource_type", "session"},
                             {"resource_name", std::string(name.substr(0, kMaxNameBytes))}}},
      "no such session");
}

struct Sums {
  int visuals = 0;
  int64_t text_bytes = 0;
  int64_t inline_bytes = 0;  // held in memory
};

Sums SumsOf(const std::vector<Turn>& turns) {
  Sums sums;
  const auto add = [&sums](const MediaSource& source) {
    ++sums.visuals;
    if (source.bytes != nullptr) sums.inline_bytes += static_cast<int64_t>(source.bytes->size());
  };
  for (const Turn& turn : turns) {
    for (const Part& part : turn.parts) {
      if (const auto* text = std::get_if<TextPart>(&part)) {
        sums.text_bytes += static_cast<int64_t>(text->text.size());
      } else if (const auto* video = std::get_if<VideoPart>(&part)) {
        add(video->source);
      } else {
        add(std::get<ImagePart>(part).source);
      }
    }
  }
  return sums;
}

// `earlier` followed by `later`, whose first turn goes on with an open one.
std::vector<Turn> Joined(const std::vector<Turn>& earlier, std::vector<Turn> later) {
  std::vector<Turn> turns = earlier;
  size_t next = 0;
  if (!turns.empty() && turns.back().role == Role::kUser && later.front().role == Role::kUser) {
    for (Part& part : later.front().parts) turns.back().parts.push_back(std::move(part));
    next = 1;
  }
  for (; next < later.size(); ++next) turns.push_back(std::move(later[next]));
  return turns;
}

Turn AnswerTurn(const GenerateResult& result) {
  Turn turn;
  turn.role = Role::kAssistant;
  turn.parts.emplace_back(TextPart{result.answer_text});
  turn.token_ids = result.answer_ids;
  return turn;
}

}  // namespace

SessionTurn::~SessionTurn() { store_->End(*this, absl::CancelledError(), nullptr); }

void SessionTurn::Finished(const absl::Status& status, const GenerateResult& result) {
  store_->End(*this, status, &result);
}

SessionStore::SessionStore(const SessionOptions& options, const QuestionLimits& limits,
                           const Clock& clock, std::function<void(const SessionPin&)> unpin)
    : options_(options), limits_(limits), clock_(clock), unpin_(std::move(unpin)) {}

std::shared_ptr<SessionPin> SessionStore::MakePin() {
  return std::make_shared<SessionPin>(SessionId{next_pin_.fetch_add(1, std::memory_order_relaxed)});
}

absl::Status SessionStore::CheckLimits(const std::vector<Turn>& turns) const {
  if (static_cast<int>(turns.size()) > limits_.max_turns) {
    return InvalidField("question.turns", absl::StrCat("the session would have ", turns.size(),
                                                       " turns, limit ", limits_.max_turns));
  }
  const Sums sums = SumsOf(turns);
  if (sums.visuals > limits_.max_clips) {
    return InvalidField("question.turns",
                        absl::StrCat("the session would have ", sums.visuals,
                                     " clips and pictures, limit ", limits_.max_clips));
  }
  return absl::OkStatus();
}

absl::Status SessionStore::CheckQuota(const std::string& tenant, int64_t more_bytes) const {
  int own = 0;
  int64_t bytes = more_bytes;
  for (const auto& [id, session] : sessions_) {
    own += session.tenant == tenant;
    bytes += SumsOf(session.turns).inline_bytes;
  }
  if (own > options_.tenant) return OverQuota("tenant_sessions", own, options_.tenant);
  const auto all = static_cast<int64_t>(sessions_.size());
  if (all > options_.total) return OverQuota("sessions", all, options_.total);
  if (bytes > options_.bytes) return OverQuota("session_bytes", bytes, options_.bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<SessionTurn>> SessionStore::Create(const std::string& tenant,
                                                                  const std::string& id,
                                                                  absl::Duration ttl,
                                                                  ParsedQuestion& question) {
  GenerateRequest& request = question.request;
  const Sums sums = SumsOf(request.turns);
  if (sums.visuals == 0) return InvalidField("turns", "hold no clip and no picture");
  if (ttl == absl::ZeroDuration()) ttl = options_.default_ttl;
  if (ttl < absl::Seconds(1) || ttl > options_.max_ttl) {
    return InvalidField("ttl", absl::StrCat("is ", absl::FormatDuration(ttl), ", must be 1s to ",
                                            absl::FormatDuration(options_.max_ttl)));
  }
  request.pin = MakePin();
  request.open_turn = request.must_pin = true;
  absl::MutexLock lock(&mutex_);
  Session session;
  session.tenant = tenant;
  session.system_instruction = request.system_instruction;
  session.attention = request.attention;
  session.pin = request.pin;
  session.ttl = ttl;
  session.create_time = clock_.Now();
  session.last_use = clock_.Monotonic();
  VNSA_CHECK(sessions_.emplace(id, std::move(session)).second) << "session " << id << " twice";
  if (absl::Status quota = CheckQuota(tenant, sums.inline_bytes); !quota.ok()) {
    sessions_.erase(id);
    return quota;
  }
  std::shared_ptr<SessionTurn> turn(new SessionTurn(this, id, SessionTurn::Kind::kCreate));
  turn->turns_ = request.turns;
  turn->holds_ = question.holds;
  turn->pin_ = request.pin;
  return turn;
}

SessionStore::Session* SessionStore::Find(const std::string& tenant, const std::string& name) {
  absl::string_view id = name;
  if (!absl::ConsumePrefix(&id, kPrefix)) return nullptr;
  const auto found = sessions_.find(id);
  if (found == sessions_.end() || found->second.tenant != tenant || !found->second.ready) {
    return nullptr;
  }
  return &found->second;
}

absl::StatusOr<std::shared_ptr<SessionTurn>> SessionStore::GoOn(const std::string& tenant,
                                                                const std::string& name,
                                                                SessionTurn::Kind kind,
                                                                ParsedQuestion& question) {
  Session* const session = Find(tenant, name);
  if (session == nullptr) return SessionNotFound(name);
  if (session->busy) {
    return MakeError(absl::StatusCode::kAborted,
                     ErrorInfo{.reason = "SESSION_BUSY", .retry_after = kBusyRetry},
                     "the session is answering another turn");
  }
  GenerateRequest& request = question.request;
  std::vector<Turn> turns = Joined(session->turns, std::move(request.turns));
  VNSA_RETURN_IF_ERROR(CheckLimits(turns));
  const std::string id = name.substr(kPrefix.size());
  std::shared_ptr<SessionTurn> turn(new SessionTurn(this, id, kind));
  turn->turns_ = turns;
  turn->holds_ = session->holds;
  turn->holds_.insert(turn->holds_.end(), question.holds.begin(), question.holds.end());
  turn->pin_ = session->pin;
  request.turns = std::move(turns);
  request.system_instruction = session->system_instruction;
  request.attention = session->attention;
  request.expects_reuse = true;
  if (kind != SessionTurn::Kind::kNothing) request.pin = session->pin;
  question.holds = turn->holds_;
  session->busy = true;
  session->last_use = clock_.Monotonic();
  return turn;
}

absl::StatusOr<std::shared_ptr<SessionTurn>> SessionStore::Ask(const std::string& tenant,
                                                               const std::string& name,
                                                               ParsedQuestion& question) {
  absl::MutexLock lock(&mutex_);
  return GoOn(tenant, name, SessionTurn::Kind::kAnswer, question);
}

absl::StatusOr<std::shared_ptr<SessionTurn>> SessionStore::Peek(const std::string& tenant,
                                                                const std::string& name,
                                                                ParsedQuestion& question) {
  absl::MutexLock lock(&mutex_);
  return GoOn(tenant, name, SessionTurn::Kind::kNothing, question);
}

absl::StatusOr<std::shared_ptr<SessionTurn>> SessionStore::Append(const std::string& tenant,
                                                                  const std::string& name,
                                                                  AttentionSemantics trained,
                                                                  ParsedQuestion& question) {
  const Sums sums = SumsOf(question.request.turns);
  if (sums.visuals == 0) return InvalidField("parts", "hold no clip and no picture");
  absl::MutexLock lock(&mutex_);
  const Session* const session = Find(tenant, name);
  if (session == nullptr) return SessionNotFound(name);
  const AttentionSemantics semantics = session->attention.semantics.value_or(trained);
  if (NeedsWholePrompt(semantics)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     ErrorInfo{.reason = "SESSION_NOT_APPENDABLE",
                               .metadata = {{"semantics", SemanticsName(semantics)}}},
                     absl::StrCat("with ", SemanticsName(semantics),
                                  " attention earlier rows depend on later frames: ask about all "
                                  "frames in a new session"));
  }
  VNSA_RETURN_IF_ERROR(CheckQuota(tenant, sums.inline_bytes));
  question.request.open_turn = question.request.must_pin = true;
  return GoOn(tenant, name, SessionTurn::Kind::kAppend, question);
}

void SessionStore::End(SessionTurn& turn, const absl::Status& status,
                       const GenerateResult* result) {
  if (turn.over_.exchange(true)) return;
  std::vector<std::shared_ptr<SessionPin>> over;
  std::vector<std::shared_ptr<void>> replaced;  // let go after the lock
  {
    absl::MutexLock lock(&mutex_);
    const auto found = sessions_.find(turn.id_);
    if (found == sessions_.end() || found->second.pin != turn.pin_) return;  // deleted
    Session& session = found->second;
    session.busy = false;
    session.last_use = clock_.Monotonic();
    if (!status.ok() || result == nullptr) {
      if (!session.ready) {
        over.push_back(session.pin);
        sessions_.erase(found);
      }
    } else if (turn.kind_ != SessionTurn::Kind::kNothing) {
      session.ready = true;
      session.prompt = result->usage.prompt;
      session.turns = std::move(turn.turns_);
      replaced = std::exchange(session.holds, std::move(turn.holds_));
      if (turn.kind_ == SessionTurn::Kind::kAnswer) session.turns.push_back(AnswerTurn(*result));
    }
  }
  Close(over);
}

void SessionStore::Close(const std::vector<std::shared_ptr<SessionPin>>& pins) {
  for (const std::shared_ptr<SessionPin>& pin : pins) {
    pin->closed.store(true, std::memory_order_release);
    unpin_(*pin);
  }
}

absl::Time SessionStore::ExpiryOf(const Session& session) const {
  return clock_.Now() + (session.last_use + session.ttl - clock_.Monotonic());
}

absl::StatusOr<v1::GetSessionResponse> SessionStore::Get(const std::string& tenant,
                                                         const std::string& name,
                                                         AttentionSemantics trained) const {
  absl::MutexLock lock(&mutex_);
  const Session* const session = const_cast<SessionStore*>(this)->Find(tenant, name);
  if (session == nullptr) return SessionNotFound(name);
  const AttentionSemantics semantics = session->attention.semantics.value_or(trained);
  v1::GetSessionResponse out;
  out.set_session(name);
  out.set_turns(static_cast<int>(session->turns.size()));
  out.set_visuals(SumsOf(session->turns).visuals);
  out.mutable_prompt()->set_text(session->prompt.text);
  out.mutable_prompt()->set_vision(session->prompt.vision);
  out.set_kv_pages(session->pin->pages.load(std::memory_order_acquire));
  out.set_semantics(SemanticsName(semantics));
  out.set_appendable(!NeedsWholePrompt(semantics));
  out.set_busy(session->busy);
  *out.mutable_create_time() = ToProto(session->create_time);
  *out.mutable_expire_time() = ToProto(ExpiryOf(*session));
  return out;
}

void SessionStore::Delete(const std::string& tenant, const std::string& name) {
  std::vector<std::shared_ptr<SessionPin>> over;
  std::vector<std::shared_ptr<void>> holds;  // let go after the lock
  {
    absl::MutexLock lock(&mutex_);
    Session* const session = Find(tenant, name);
    if (session == nullptr) return;
    over.push_back(session->pin);
    holds = std::move(session->holds);
    sessions_.erase(name.substr(kPrefix.size()));
  }
  Close(over);
}

int SessionStore::Sweep() {
  std::vector<std::shared_ptr<SessionPin>> over;
  std::vector<Session> dead;  // dies after the lock
  {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = clock_.Monotonic();
    absl::erase_if(sessions_, [&](auto& entry) {
      Session& session = entry.second;
      if (session.busy || now - session.last_use < session.ttl) return false;
      over.push_back(session.pin);
      dead.push_back(std::move(session));
      return true;
    });
  }
  Close(over);
  return static_cast<int>(over.size());
}

int SessionStore::size() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(sessions_.size());
}

}  // namespace videonsa
