#include "client/report/ask_text.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "client/format.h"
#include "client/report/timeline.h"

namespace videonsa::client {
namespace {

std::string Head(const Painter& painter, absl::string_view title) {
  std::string padded(title);
  padded.resize(11, ' ');
  return painter.Paint(Style::kBold, padded);
}

std::string TokensText(const proto::AskResult& result) {
  const proto::Usage& usage = result.usage();
  const int64_t prompt = usage.prompt().text() + usage.prompt().vision();
  std::string out = absl::StrCat(Grouped(prompt), " in (", Grouped(usage.prompt().vision()),
                                 " vision, ", Grouped(usage.prompt().text()), " text");
  if (usage.cached_prompt_tokens() > 0) {
    absl::StrAppend(&out, "; ", Grouped(usage.cached_prompt_tokens()), " reused");
  }
  absl::StrAppend(&out, "), ", Grouped(usage.output_tokens()), " out, ", FinishText(result));
  return out;
}

std::string TimesText(const proto::AskResult& result, const Painter& painter) {
  const proto::Timing& timing = result.timing();
  std::string out =
      absl::StrCat("first token after ", HumanDuration(FromProto(timing.time_to_first_token())),
                   ", all in ", HumanDuration(FromProto(timing.total())));
  const double generate = absl::ToDoubleSeconds(FromProto(timing.generate()));
  if (generate > 0 && result.usage().output_tokens() > 1) {
    absl::StrAppend(
        &out, absl::StrFormat(", %.1f tokens/s", (result.usage().output_tokens() - 1) / generate));
  }
  if (timing.preemptions() > 0) {
    absl::StrAppend(&out, ", ", HumanDuration(FromProto(timing.preempted())), " of it preempted (",
                    timing.preemptions(), timing.preemptions() == 1 ? " time)" : " times)");
  }
  out += '\n';
  const auto phases = PhasesOf(timing);
  absl::Duration longest = absl::ZeroDuration();
  for (const auto& [name, time] : phases) longest = std::max(longest, time);
  for (const auto& [name, time] : phases) {
    absl::StrAppend(&out, absl::StrFormat("           %-11s %10s  ", name, HumanDuration(time)),
                    painter.Paint(Style::kCyan, Blocks(absl::FDivDuration(time, longest), 24)),
                    "\n");
  }
  return out;
}

std::string BudgetText(const proto::AttentionReport& report, const Painter& painter) {
  std::string out = SemanticsText(report);
  if (report.effective().has_selected_blocks() && report.effective().selected_blocks() > 0) {
    absl::StrAppend(&out, ", ", report.effective().selected_blocks(), " blocks");
  }
  if (report.effective().has_window_tokens() && report.effective().window_tokens() > 0) {
    absl::StrAppend(&out, ", window ", Grouped(report.effective().window_tokens()));
  }
  if (report.clamped()) out += painter.Paint(Style::kYellow, ", lowered to the budget");
  absl::StrAppend(&out, ": ", Percent(report.budget_fraction()), " of the dense pairs\n");
  if (report.used().compressed() > 0) {
    absl::StrAppend(&out, "           ", Percent(report.budget_fraction_without_compressed()),
                    " without compression");
    if (report.paper_budget_fraction() > 0) {
      absl::StrAppend(&out, "; the paper's formula: ", Percent(report.paper_budget_fraction()));
    }
    out += '\n';
  }
  const auto branches = BranchesOf(report.used());
  int64_t most = 1;
  for (const auto& [name, pairs] : branches) most = std::max(most, pairs);
  const double dense = static_cast<double>(std::max<int64_t>(report.dense_pairs(), 1));
  for (const auto& [name, pairs] : branches) {
    absl::StrAppend(&out, absl::StrFormat("           %-11s %10s  ", name, Percent(pairs / dense)),
                    painter.Paint(Style::kCyan, Blocks(static_cast<double>(pairs) / most, 24)), " ",
                    painter.Paint(Style::kDim, absl::StrCat(Grouped(pairs), " pairs")), "\n");
  }
  return out;
}

std::string LayersText(const proto::AttentionReport& report, const Painter& painter) {
  std::string out = painter.Paint(
      Style::kBold, "layer      compressed       selected         window          dense\n");
  for (const proto::LayerAttention& layer : report.layers()) {
    absl::StrAppend(
        &out, absl::StrFormat("%5d %15s %14s %14s %14s\n", layer.layer(),
                              Grouped(layer.used().compressed()), Grouped(layer.used().selected()),
                              Grouped(layer.used().window()), Grouped(layer.used().dense())));
  }
  return out;
}

std::string GatesText(const proto::AttentionReport& report, const Painter& painter) {
  if (!report.has_mean_gates() && report.layers_size() == 0) {
    return absl::StrCat(Head(painter, "gates"), "none: this attention has no gates\n");
  }
  const auto row = [&](const std::string& name, const proto::BranchGates& gates) {
    std::string line = absl::StrFormat("  %-8s", name);
    for (const double gate : {gates.compressed(), gates.selected(), gates.window()}) {
      const std::string bar = Blocks(gate, 12);
      absl::StrAppend(&line, absl::StrFormat("  %.3f ", gate), painter.Paint(Style::kCyan, bar),
                      std::string(12 - DisplayWidth(bar), ' '));
    }
    return absl::StrCat(absl::StripTrailingAsciiWhitespace(line), "\n");
  };
  std::string out =
      painter.Paint(Style::kBold, "gates       compressed          selected            window\n");
  for (const proto::LayerAttention& layer : report.layers()) {
    if (layer.has_mean_gates()) {
      absl::StrAppend(&out, row(absl::StrCat("layer ", layer.layer()), layer.mean_gates()));
    }
  }
  return absl::StrCat(out, row("mean", report.mean_gates()));
}

}  // namespace

std::string FinishText(const proto::AskResult& result) {
  switch (result.finish_reason()) {
    case proto::AskResult::FINISH_REASON_STOP:
      return result.matched_stop().empty()
                 ? "end of answer"
                 : absl::StrCat("stopped at \"", result.matched_stop(), "\"");
    case proto::AskResult::FINISH_REASON_LENGTH:
      return "token limit reached (--max-tokens)";
    case proto::AskResult::FINISH_REASON_CONTEXT:
      return "context window full";
    case proto::AskResult::FINISH_REASON_DEADLINE:
      return "time ran out, the answer is partial";
    case proto::AskResult::FINISH_REASON_DRAIN:
      return "server is stopping, the answer is partial";
    default:
      return "no reason given";
  }
}

std::string SemanticsText(const proto::AttentionReport& report) {
  if (!report.semantics().empty()) return report.semantics();
  const std::string name = proto::AttentionConfig::Mode_Name(report.mode());
  return absl::AsciiStrToLower(absl::StripPrefix(name, "MODE_"));
}

std::vector<std::pair<std::string, absl::Duration>> PhasesOf(const proto::Timing& timing) {
  std::vector<std::pair<std::string, absl::Duration>> phases;
  const auto add = [&](const char* name, bool set, const google::protobuf::Duration& time) {
    if (set && FromProto(time) > absl::ZeroDuration()) phases.emplace_back(name, FromProto(time));
  };
  add("queue", timing.has_queue(), timing.queue());
  add("fetch", timing.has_fetch(), timing.fetch());
  add("decode", timing.has_decode(), timing.decode());
  add("preprocess", timing.has_preprocess(), timing.preprocess());
  add("tokenize", timing.has_tokenize(), timing.tokenize());
  add("vision", timing.has_vision_encode(), timing.vision_encode());
  add("prefill", timing.has_prefill(), timing.prefill());
  add("generate", timing.has_generate(), timing.generate());
  return phases;
}

std::vector<std::pair<std::string, int64_t>> BranchesOf(const proto::BranchPairs& pairs) {
  std::vector<std::pair<std::string, int64_t>> branches = {{"compressed", pairs.compressed()},
                                                           {"selected", pairs.selected()},
                                                           {"window", pairs.window()},
                                                           {"dense", pairs.dense()}};
  std::erase_if(branches, [](const auto& branch) { return branch.second == 0; });
  return branches;
}

std::string VisualText(const proto::VisualReport& visual) {
  std::string out = absl::StrCat(visual.source_width(), "×", visual.source_height(), " → ",
                                 visual.width(), "×", visual.height());
  if (!visual.image()) {
    absl::StrAppend(&out, ", ", visual.frame_times_size(), " frames");
    if (visual.sampled_fps() > 0) {
      absl::StrAppend(&out, absl::StrFormat(" at %.3g/s", visual.sampled_fps()));
    }
    if (visual.frame_times_size() > 0) {
      absl::StrAppend(&out, ", ", ClipTime(FromProto(visual.frame_times(0))), " – ",
                      ClipTime(FromProto(visual.frame_times(visual.frame_times_size() - 1))));
    }
  }
  absl::StrAppend(&out, ", ", Grouped(visual.tokens()), " tokens");
  return out;
}

std::string AskText(const proto::AskResult& result, const Painter& painter,
                    const AskTextOptions& options) {
  std::string out;
  for (int i = 0; i < result.visuals_size(); ++i) {
    const proto::VisualReport& visual = result.visuals(i);
    const std::string name =
        i < static_cast<int>(options.visual_names.size()) ? options.visual_names[i] : "";
    absl::StrAppend(
        &out, Head(painter, absl::StrCat(visual.image() ? "picture " : "clip ", i + 1)),
        name.empty() ? "" : absl::StrCat(Ellipsize(name, options.columns - 12), "\n           "),
        VisualText(visual), "\n");
  }
  absl::StrAppend(&out, Head(painter, "tokens"), TokensText(result), "\n");
  if (result.has_timing()) {
    absl::StrAppend(&out, Head(painter, "time"), TimesText(result, painter));
  }
  if (result.kv_reuse() == proto::KV_REUSE_FEATURES) {
    absl::StrAppend(&out, Head(painter, "reuse"), "vision features of an earlier request\n");
  } else if (result.kv_reuse() == proto::KV_REUSE_EXACT) {
    absl::StrAppend(&out, Head(painter, "reuse"), "keys and values of an equal earlier prefix\n");
  }
  if (result.has_attention()) {
    absl::StrAppend(&out, Head(painter, "attention"), BudgetText(result.attention(), painter));
  }
  if (options.layers) absl::StrAppend(&out, LayersText(result.attention(), painter));
  if (options.gates) absl::StrAppend(&out, GatesText(result.attention(), painter));
  if (options.evidence) {
    const Evidence evidence = BuildEvidence(result, std::max(options.columns, 40) - 4);
    absl::StrAppend(&out, TimelineText(evidence, options.visual_names, painter, options.columns));
  }
  absl::StrAppend(
      &out, Head(painter, "answered"),
      painter.Paint(Style::kDim, absl::StrCat(result.model_version(), " on server ",
                                              result.server_version(), ", ", result.ask_id())),
      "\n");
  return out;
}

}  // namespace videonsa::client
