#include "runtime/engine/admission.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/engine/prefix_keys.h"

namespace videonsa {

KvNeed NeedOf(const PreparedPrompt& prompt, const ExecutorInfo& info) {
  const int64_t prompt_tokens = static_cast<int64_t>(prompt.spec.token_ids.size());
  KvNeed need;
  need.pages = static_cast<int>(
      PagesFor(prompt_tokens + prompt.spec.sampling.max_output_tokens, kPageTokens));
  if (NeedsWholePrompt(prompt.spec.attention.semantics)) {
    need.hidden_bytes = prompt_tokens * info.hidden_row_bytes;
  }
  return need;
}

double NumPrefillSlices(const PreparedPrompt& prompt, int step_tokens) {
  if (NeedsWholePrompt(prompt.spec.attention.semantics)) return 1;
  const double tokens = static_cast<double>(prompt.spec.token_ids.size());
  return std::ceil(tokens / std::max(step_tokens, 1));
}

absl::Status CheckFits(const PreparedPrompt& prompt, const ExecutorInfo& info,
                       int64_t hidden_bytes) {
  const int64_t prompt_tokens = static_cast<int64_t>(prompt.spec.token_ids.size());
  const int64_t total = prompt_tokens + prompt.spec.sampling.max_output_tokens;
  if (total > info.max_context_tokens) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        ErrorInfo{.reason = "CONTEXT_TOO_LONG",
                  .metadata = {{"prompt_tokens", absl::StrCat(prompt_tokens)},
                               {"max_output_tokens",
                                absl::StrCat(prompt.spec.sampling.max_output_tokens)},
                               {"limit", absl::StrCat(info.max_context_tokens)}}},
        absl::StrCat("question: ", prompt_tokens, " prompt tokens and ",
                     prompt.spec.sampling.max_output_tokens,
                     " output tokens exceed the context of ", info.max_context_tokens, " tokens"));
  }
  const KvNeed need = NeedOf(prompt, info);
  if (need.pages > info.num_pages) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     ErrorInfo{.reason = "KV_TOO_SMALL",
                               .metadata = {{"kv_pages", absl::StrCat(need.pages)},
                                            {"limit", absl::StrCat(info.num_pages)}}},
                     absl::StrCat("question: needs ", need.pages, " pages of ", kPageTokens,
                                  " tokens, this server has ", info.num_pages));
  }
  if (need.hidden_bytes > hidden_bytes) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        ErrorInfo{.reason = "KV_TOO_SMALL",
                  .metadata = {{"hidden_bytes", absl::StrCat(need.hidden_bytes)},
                               {"limit", absl::StrCat(hidden_bytes)}}},
        absl::StrCat("question: layer-wise prefill of ", prompt_tokens, " tokens needs ",
                     need.hidden_bytes, " bytes of hidden states, this server has ", hidden_bytes));
  }
  return absl::OkStatus();
}

AdmissionPolicy::AdmissionPolicy(const ExecutorInfo& info, int64_t hidden_bytes,
                                 const SessionPins::Limits& pins)
    : info_(info),
      pool_(info.num_pages),
      index_(&pool_),
      pins_(&pool_, pins),
      hidden_(hidden_bytes) {}

// Sessions yield to a sequence of `pages` pages, `shared` among them, that would wait for them for
// ever: everybody else's pages come back by themselves.
void AdmissionPolicy::MakeRoom(int pages, const std::vector<int32_t>& shared) {
  const auto others = [&] {
    const auto own = [this](int32_t page) { return pins_.holds(page); };
    return pins_.num_pages() - std::count_if(shared.begin(), shared.end(), own);
  };
  while (pages > pool_.capacity() - others() && pins_.DropOldest()) {
  }
}

bool AdmissionPolicy::TryAdmit(Sequence& sequence) {
  const PreparedPrompt& prompt = *sequence.prompt;
  const KvNeed need = NeedOf(prompt, info_);
  // At least one prompt row must run, or there is nothing to sample from.
  const int shareable = (sequence.prompt_len() - 1) / kPageTokens;
  // Most that fail here fail cheaply.
  const int known = index_.Match(prompt.page_keys, shareable);
  if (need.pages - known > pool_.num_free() + index_.num_cached() + pins_.num_pages()) {
    return false;
  }
  std::vector<int32_t> pages = index_.Acquire(prompt.page_keys, shareable);
  const int num_shared = static_cast<int>(pages.size());
  MakeRoom(need.pages, pages);
  const int missing = need.pages - num_shared;
  // Nothing is dropped for a request that could not start all the same.
  if (missing > pool_.num_free() + index_.num_cached()) {
    for (const int32_t page : pages) pool_.Unref(page);
    return false;
  }
  if (missing > pool_.num_free()) num_evicted_ += index_.Evict(missing - pool_.num_free());
  std::optional<std::vector<int32_t>> fresh;
  if (hidden_.TryReserve(need.hidden_bytes)) {
    fresh = pool_.TryAllocate(missing);
    if (!fresh) hidden_.Release(need.hidden_bytes);
  }
  if (!fresh) {
    for (const int32_t page : pages) pool_.Unref(page);
    return false;
  }
  pages.insert(pages.end(), fresh->begin(), fresh->end());
  sequence.need = need;
  sequence.pages = PageTable(&pool_, std::move(pages), num_shared);
  sequence.cached_tokens = num_shared * kPageTokens;
  return true;
}

void AdmissionPolicy::Release(Sequence& sequence) {
  VNSA_CHECK_EQ(sequence.in_flight, 0) << "I7: pages given back under a running step";
  VNSA_CHECK_EQ(sequence.pages.size(), sequence.need.pages) << "I8";
  sequence.pages.Clear();
  hidden_.Release(sequence.need.hidden_bytes);
  sequence.need = KvNeed{};
}

void AdmissionPolicy::Publish(const Sequence& sequence) {
  index_.Insert(sequence.prompt->page_keys, sequence.pages.pages());
  HoldForSession(sequence);
}

void AdmissionPolicy::PublishAnswer(Sequence& sequence) {
  if (sequence.request.pin == nullptr || sequence.output_ids.empty()) return;
  PreparedPrompt& prompt = *sequence.prompt;
  // The last token was sampled, never fed: it has no row.
  const auto rows = absl::MakeConstSpan(sequence.output_ids).first(sequence.output_ids.size() - 1);
  const std::vector<Sha256Digest> more =
      MorePrefixKeys(prompt.spec, prompt.page_salt, prompt.page_keys, rows);
  if (more.empty()) return;
  prompt.page_keys.insert(prompt.page_keys.end(), more.begin(), more.end());
  index_.Insert(prompt.page_keys, sequence.pages.pages());
  HoldForSession(sequence);
}

void AdmissionPolicy::HoldForSession(const Sequence& sequence) {
  const std::shared_ptr<SessionPin>& pin = sequence.request.pin;
  if (pin == nullptr || pin->closed.load(std::memory_order_acquire)) return;
  const std::vector<Sha256Digest>& keys = sequence.prompt->page_keys;
  pins_.Hold({.session = pin->id.value,
              .tenant = sequence.request.tenant,
              .count = std::shared_ptr<std::atomic<int>>(pin, &pin->pages)},
             index_.Acquire(keys, static_cast<int>(keys.size())));
}

bool AdmissionPolicy::CanPin(const PreparedPrompt& prompt, const std::string& tenant) {
  const int wanted = static_cast<int>(prompt.page_keys.size());
  const std::vector<int32_t> known = index_.Acquire(prompt.page_keys, wanted);
  const bool fits = pins_.Fits(tenant, known, wanted - static_cast<int>(known.size()));
  for (const int32_t page : known) pool_.Unref(page);
  return fits;
}

}  // namespace videonsa
