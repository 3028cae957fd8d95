// A runtime (decoder processes, text, engine, worker) on a GPU or a CPU, asked as a server would
// ask it; needs no gRPC.
//
// Usage: serve_check MODEL_DIR [--device cuda] [--dummy] [--attention NAME] [--compute-type NAME]
//                    [--kv-bytes N] [--clip FILE [--fps F] [--frames N] [--pixels N]]
//                    [--tokens N] [--requests N] [--too-large]
// Prints what `status` says, answers a question about the clip with the account of its attention,
// then N mixed questions at once beside each alone. --too-large: the question must be refused by a
// typed error instead. Exit code 1: something was not as it must be.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/error.h"
#include "runtime/base/hash.h"
#include "runtime/serving/runtime.h"
#include "runtime/telemetry/metrics.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

struct Options {
  RuntimeOptions runtime;
  MediaSource clip;
  VideoSampling sampling;
  int tokens = 16;
  int requests = 0;
  bool too_large = false;
};

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }
long long Wide(int64_t value) { return static_cast<long long>(value); }

void PrintStatus(const Runtime& runtime) {
  const RuntimeStats stats = runtime.Stats();
  const ModelFacts& model = runtime.model();
  std::printf(
      "status: %s, %s, %s%s, %s; %d of %d workers serving, context %lld tokens, KV pages %lld of "
      "%lld used (%lld bytes a page), %d decoder processes\n",
      model.device.c_str(), model.name.c_str(), model.compute_type.c_str(),
      model.random_weights ? ", random weights" : "", SemanticsName(model.semantics),
      stats.workers_serving, stats.workers, Wide(model.max_context_tokens),
      Wide(stats.kv_pages_used), Wide(stats.kv_pages_total), Wide(stats.kv_page_bytes),
      stats.decoder_processes);
  std::printf("status: cost model of %lld steps, error %.1f %%: %s\n", Wide(stats.cost_model_steps),
              100 * stats.cost_model_error, stats.cost_model.c_str());
}

GenerateRequest Question(const Options& options, const std::string& text, bool with_clip) {
  GenerateRequest request;
  request.tenant = "check";
  Turn turn;
  if (with_clip) turn.parts.emplace_back(VideoPart{options.clip, options.sampling});
  turn.parts.emplace_back(TextPart{text});
  request.turns.push_back(std::move(turn));
  request.generation.max_output_tokens = options.tokens;
  request.generation.temperature = 0.0f;
  request.generation.ignore_eos = true;
  return request;
}

absl::StatusOr<std::shared_ptr<RecordingSink>> Submit(Runtime& runtime, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>();
  const absl::StatusOr<RequestId> id = runtime.Submit(std::move(request), sink);
  if (!id.ok()) return id.status();
  return sink;
}

absl::StatusOr<GenerateResult> Ask(Runtime& runtime, GenerateRequest request) {
  const auto sink = Submit(runtime, std::move(request));
  if (!sink.ok()) return sink.status();
  (*sink)->Await();
  if (!(*sink)->status().ok()) return (*sink)->status();
  return (*sink)->result();
}

std::string PairsText(const BranchPairs& pairs) {
  return absl::StrFormat("compressed %d, selected %d, window %d, dense %d, in all %d",
                         pairs.compressed, pairs.selected, pairs.window, pairs.dense,
                         pairs.total());
}

// Prints the reply; returns whether its account adds up.
bool PrintReply(const GenerateResult& result) {
  const Usage& usage = result.usage;
  const Timing& t = result.timing;
  std::printf(
      "reply: %lld prompt tokens (%lld vision, %lld text), %lld frames used, %lld cached, "
      "%lld KV pages; %lld output tokens:",
      Wide(usage.prompt.text + usage.prompt.vision), Wide(usage.prompt.vision),
      Wide(usage.prompt.text), Wide(usage.frames_used), Wide(usage.cached_prompt_tokens),
      Wide(usage.kv_pages_peak), Wide(usage.output_tokens));
  for (const int32_t id : result.answer_ids) std::printf(" %d", id);
  std::printf(
      "\ntimes, s: queue %.3f, decode %.3f, preprocess %.3f, tokenize %.3f, vision %.3f, "
      "prefill %.3f, generate %.3f; first token %.3f, between tokens %.4f, total %.3f\n",
      Seconds(t.queue), Seconds(t.decode), Seconds(t.preprocess), Seconds(t.tokenize),
      Seconds(t.vision), Seconds(t.prefill), Seconds(t.generate), Seconds(t.time_to_first_token),
      Seconds(t.mean_inter_token), Seconds(t.total));
  const AttentionAccount& account = result.account;
  const BranchPairs total = account.total();
  const auto dense = static_cast<double>(std::max<int64_t>(account.dense_pairs, 1));
  std::printf(
      "attention: %s, %d blocks, window %d, copies %d; pairs a query head: %s; dense %lld; "
      "budget %.2f %%, without compressed %.2f %%\n",
      SemanticsName(result.attention.semantics), result.attention.selected_blocks,
      result.attention.window_tokens, result.attention.copies, PairsText(total).c_str(),
      Wide(account.dense_pairs), 100 * static_cast<double>(total.total()) / dense,
      100 * static_cast<double>(total.total() - total.compressed) / dense);
  for (size_t layer = 0; layer < account.layers.size(); ++layer) {
    if (layer > 0 && account.layers[layer] == account.layers[layer - 1]) continue;
    std::printf("attention: from layer %zu on: %s\n", layer,
                PairsText(account.layers[layer]).c_str());
  }
  // Every row but that of the last token, which is not fed, sees itself and those before it.
  const int64_t rows = usage.prompt.text + usage.prompt.vision + usage.output_tokens - 1;
  const auto layers = static_cast<int64_t>(account.layers.size());
  const int64_t expected = layers * (rows * (rows + 1) / 2);
  if (layers == 0 || account.dense_pairs != expected) {
    std::printf("FAIL: %lld dense pairs, %lld layers of %lld rows have %lld\n",
                Wide(account.dense_pairs), Wide(layers), Wide(rows), Wide(expected));
    return false;
  }
  return true;
}

// The question about the clip: priced, asked, and its account checked.
bool AskAboutClip(Runtime& runtime, const Options& options) {
  const GenerateRequest request =
      Question(options, "What happens in the clip?", options.clip.bytes != nullptr);
  if (const auto estimate = runtime.Estimate(request); estimate.ok()) {
    std::printf(
        "estimate: %lld tokens, %s; %lld KV pages, first token after %.3f s, total %.3f s, "
        "budget %.2f %%\n",
        Wide(estimate->prompt.text + estimate->prompt.vision),
        estimate->admissible ? "admissible" : std::string(estimate->why.message()).c_str(),
        Wide(estimate->kv_pages), Seconds(estimate->time_to_first_token), Seconds(estimate->total),
        100 * estimate->budget_fraction);
  }
  const absl::StatusOr<GenerateResult> result = Ask(runtime, request);
  if (!options.too_large) {
    if (result.ok()) return PrintReply(*result);
    std::printf("FAIL: %s\n", result.status().ToString().c_str());
    return false;
  }
  const auto info = GetErrorInfo(result.status());
  const bool typed =
      (absl::IsResourceExhausted(result.status()) || absl::IsInvalidArgument(result.status())) &&
      info.has_value();
  std::printf("%s: %s %s: %s\n", typed ? "refused" : "FAIL: not refused by a typed error",
              absl::StatusCodeToString(result.status().code()).c_str(),
              info ? info->reason.c_str() : "", std::string(result.status().message()).c_str());
  return typed;
}

// Text and clips of several lengths, dense and as trained, greedy and sampled.
GenerateRequest MixedQuestion(const Options& options, int index) {
  std::string text = absl::StrCat("Question ", index, ": what is shown");
  for (int i = 0; i < index * 7 % 50; ++i) absl::StrAppend(&text, ", and number ", i);
  GenerateRequest request =
      Question(options, text + "?", options.clip.bytes != nullptr && index % 4 != 0);
  if (request.turns[0].parts.size() == 2) {
    VideoSampling& sampling = std::get<VideoPart>(request.turns[0].parts[0]).sampling;
    sampling.fps.reset();
    sampling.max_frames.reset();
    sampling.num_frames = 4 + 2 * (index % 7);
  }
  if (index % 3 == 0) request.attention.semantics = AttentionSemantics::kDense;
  if (index % 5 == 0) {
    request.generation.temperature = 0.8f;
    request.generation.seed = static_cast<uint64_t>(index);
  }
  request.generation.max_output_tokens = 4 + index % 13;
  return request;
}

// All at once, then each alone; under another tenant, so that no pages are shared.
bool AskTogether(Runtime& runtime, const Options& options) {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const absl::Duration begin = Clock::Real().Monotonic();
  for (int i = 0; i < options.requests; ++i) {
    auto sink = Submit(runtime, MixedQuestion(options, i));
    if (!sink.ok()) {
      std::printf("FAIL: %s\n", sink.status().ToString().c_str());
      return false;
    }
    sinks.push_back(*std::move(sink));
  }
  for (const auto& sink : sinks) sink->Await();
  const double together = Seconds(Clock::Real().Monotonic() - begin);
  int equal = 0;
  int64_t tokens = 0;
  for (int i = 0; i < options.requests; ++i) {
    const auto& sink = sinks[static_cast<size_t>(i)];
    GenerateRequest again = MixedQuestion(options, i);
    again.tenant = "alone";
    const absl::StatusOr<GenerateResult> alone = Ask(runtime, std::move(again));
    if (!sink->status().ok() || !alone.ok()) {
      std::printf("FAIL: question %d: %s; alone: %s\n", i, sink->status().ToString().c_str(),
                  alone.status().ToString().c_str());
      continue;
    }
    tokens += sink->result().usage.output_tokens;
    equal += sink->result().answer_ids == alone->answer_ids;
  }
  const double all = Seconds(Clock::Real().Monotonic() - begin);
  std::printf(
      "%d of %d mixed questions answered as alone (%lld tokens); at once %.2f s, one by "
      "one %.2f s\n",
      equal, options.requests, Wide(tokens), together, all - together);
  return equal == options.requests;
}

int Main(const Options& options) {
  MetricsRegistry metrics;
  auto runtime = CreateRuntime(options.runtime, Clock::Real(), metrics);
  if (!runtime.ok()) {
    std::fprintf(stderr, "serve_check: %s\n", runtime.status().ToString().c_str());
    return 1;
  }
  PrintStatus(**runtime);
  bool passed = AskAboutClip(**runtime, options);
  if (options.requests > 0) passed &= AskTogether(**runtime, options);
  PrintStatus(**runtime);
  const int ended = (*runtime)->Drain(absl::Seconds(10));
  std::printf("%s\n", passed && ended == 0 ? "all as it must be" : "FAILED");
  return passed && ended == 0 ? 0 : 1;
}

bool ReadClip(const std::string& path, MediaSource& source) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  source.bytes = std::make_shared<std::string>(std::istreambuf_iterator<char>(file),
                                               std::istreambuf_iterator<char>());
  source.sha256 = Sha256Of(*source.bytes);
  return true;
}

bool TakeOption(const std::string& name, const std::string& value, Options& options) {
  RuntimeOptions& runtime = options.runtime;
  int64_t number = 0;
  const bool is_number = absl::SimpleAtoi(value, &number) && number > 0;
  if (name == "--device") {
    runtime.device = value;
  } else if (name == "--attention") {
    runtime.attention = value;
  } else if (name == "--compute-type") {
    runtime.compute_type = value;
  } else if (name == "--clip") {
    return ReadClip(value, options.clip);
  } else if (name == "--fps") {
    double fps = 0;
    if (!absl::SimpleAtod(value, &fps)) return false;
    options.sampling.fps = fps;
  } else if (!is_number) {
    return false;
  } else if (name == "--kv-bytes") {
    runtime.kv_bytes = number;
  } else if (name == "--frames") {
    runtime.max_frames = static_cast<int>(number);
    options.sampling.max_frames = runtime.max_frames;
  } else if (name == "--pixels") {
    options.sampling.min_pixels = options.sampling.max_pixels = number;
  } else if (name == "--tokens") {
    options.tokens = static_cast<int>(number);
  } else if (name == "--requests") {
    options.requests = static_cast<int>(number);
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace videonsa

int main(int argc, char** argv) {
  videonsa::Options options;
  options.runtime.batch_invariant = true;
  options.runtime.decoder_binary =
      (std::filesystem::canonical("/proc/self/exe").parent_path() / "videonsa-decoder").string();
  bool good = true;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--dummy") {
      options.runtime.dummy_weights = true;
    } else if (name == "--too-large") {
      options.too_large = true;
    } else if (name.starts_with("--")) {
      good &= i + 1 < argc && videonsa::TakeOption(name, argv[i + 1], options);
      ++i;
    } else {
      options.runtime.model_dir = name;
    }
  }
  if (!good || options.runtime.model_dir.empty()) {
    std::fprintf(stderr,
                 "usage: serve_check MODEL_DIR [--device cuda] [--dummy] [--attention NAME]\n"
                 "                   [--compute-type NAME] [--kv-bytes N] [--clip FILE [--fps F]\n"
                 "                   [--frames N] [--pixels N]] [--tokens N] [--requests N]\n"
                 "                   [--too-large]\n");
    return 2;
  }
  return videonsa::Main(options);
}
