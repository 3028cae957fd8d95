// The session store alone: what needs another tenant or another clock.
#include "server/session_store.h"

#include "gtest/gtest.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

class SessionStoreTest : public ::testing::Test {
 protected:
  std::string Make(const std::string& tenant, const std::string& id,
                   absl::Duration ttl = absl::ZeroDuration()) {
    ParsedQuestion question = Question("");
    auto turn = store_.Create(tenant, id, ttl, question);
    EXPECT_TRUE(turn.ok()) << turn.status();
    (*turn)->Finished(absl::OkStatus(), GenerateResult());
    pins_.push_back(question.request.pin);
    return "sessions/" + id;
  }
  static ParsedQuestion Question(const std::string& text) {
    ParsedQuestion question;
    Turn turn;
    if (text.empty()) {
      turn.parts.emplace_back(VideoPart());
    } else {
      turn.parts.emplace_back(TextPart{text});
    }
    question.request.turns.push_back(turn);
    return question;
  }
  std::string AskReason(const std::string& tenant, const std::string& name) {
    ParsedQuestion question = Question("What?");
    const auto turn = store_.Ask(tenant, name, question);
    return turn.ok() ? "" : GetErrorInfo(turn.status())->reason;
  }

  FakeClock clock_;
  SessionOptions options_;
  QuestionLimits limits_;
  std::vector<SessionId> unpinned_;
  SessionStore store_{options_, limits_, clock_,
                      [this](const SessionPin& pin) { unpinned_.push_back(pin.id); }};
  std::vector<std::shared_ptr<SessionPin>> pins_;
};

TEST_F(SessionStoreTest, ASessionOfAnotherTenantDoesNotExist) {
  const std::string name = Make("a", "one");
  EXPECT_EQ(AskReason("a", name), "");
  EXPECT_EQ(AskReason("b", name), "SESSION_NOT_FOUND");
  ParsedQuestion question = Question("");
  EXPECT_EQ(store_.Append("b", name, AttentionSemantics::kCausalNsa, question).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(store_.Peek("b", name, question).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_.Get("b", name, AttentionSemantics::kDense).status().code(),
            absl::StatusCode::kNotFound);
  store_.Delete("b", name);
  EXPECT_EQ(AskReason("a", name), "");
}

TEST_F(SessionStoreTest, ExpiresAfterItsTimeWithoutUse) {
  const std::string brief = Make("a", "brief", absl::Seconds(60));
  const std::string usual = Make("a", "usual");
  clock_.Advance(absl::Seconds(50));
  EXPECT_EQ(AskReason("a", brief), "");  // used
  clock_.Advance(absl::Seconds(50));
  EXPECT_EQ(store_.Sweep(), 0);
  {
    ParsedQuestion question = Question("What?");
    const auto turn = store_.Ask("a", brief, question);
    clock_.Advance(absl::Seconds(100));
    EXPECT_EQ(store_.Sweep(), 0);  // in use
  }
  clock_.Advance(absl::Seconds(61));
  EXPECT_EQ(store_.Sweep(), 1);
  EXPECT_EQ(AskReason("a", brief), "SESSION_NOT_FOUND");
  EXPECT_EQ(AskReason("a", usual), "");
  ASSERT_EQ(unpinned_.size(), 1u);
  EXPECT_EQ(unpinned_[0], pins_[0]->id);
  EXPECT_TRUE(pins_[0]->closed);
  EXPECT_FALSE(pins_[1]->closed);
}

TEST_F(SessionStoreTest, ClipsStayInUseWhileTheSessionLives) {
  auto lease = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = lease;
  ParsedQuestion question = Question("");
  question.holds.push_back(std::move(lease));
  {
    auto turn = *store_.Create("a", "one", absl::ZeroDuration(), question);
    turn->Finished(absl::OkStatus(), GenerateResult());
  }
  question = ParsedQuestion();
  EXPECT_FALSE(watch.expired());
  ParsedQuestion next = Question("What?");
  auto turn = *store_.Ask("a", "sessions/one", next);
  EXPECT_EQ(next.holds.size(), 1u);
  store_.Delete("a", "sessions/one");
  EXPECT_FALSE(watch.expired());  // the request may still decode
  turn->Finished(absl::OkStatus(), GenerateResult());
  turn.reset();
  next = ParsedQuestion();
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace videonsa
