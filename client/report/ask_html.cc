#include "client/report/ask_html.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/format.h"
#include "client/report/ask_text.h"
#include "client/report/charts.h"
#include "client/report/html.h"

namespace videonsa::client {
namespace {

constexpr int kTimelineBins = 180;

// Branches keep their colours over all charts of a page.
int ColourOf(const std::string& branch) {
  if (branch == "compressed") return 1;
  if (branch == "selected") return 2;
  if (branch == "window") return 3;
  return 4;
}

std::string NameOf(const AskPage& page, int clip) {
  const bool known = clip >= 0 && clip < static_cast<int>(page.visual_names.size());
  const std::string name = known ? page.visual_names[clip] : "";
  return absl::StrCat("clip ", clip + 1,
                      name.empty() ? "" : absl::StrCat(", ", name.substr(name.rfind('/') + 1)));
}

std::string Tile(const std::string& value, const std::string& what) {
  return absl::StrCat("<div class=\"tile\"><b>", Escaped(value), "</b><span>", Escaped(what),
                      "</span></div>\n");
}

std::string TilesHtml(const proto::AskResult& result) {
  const proto::Usage& usage = result.usage();
  std::string out = "<div class=\"tiles\">\n";
  absl::StrAppend(
      &out,
      Tile(HumanDuration(FromProto(result.timing().time_to_first_token())), "to the first token"),
      Tile(HumanDuration(FromProto(result.timing().total())), "in all"),
      Tile(Grouped(usage.prompt().vision() + usage.prompt().text()), "prompt tokens"),
      Tile(Grouped(usage.frames_used()), "frames looked at"),
      Tile(Percent(result.attention().budget_fraction()), "of dense attention spent"));
  return out + "</div>\n";
}

std::string MomentsHtml(const AskPage& page) {
  std::string out;
  if (!page.picture_note.empty()) {
    const bool some = std::any_of(page.moments.begin(), page.moments.end(),
                                  [](const MomentPicture& shown) { return !shown.jpeg.empty(); });
    absl::StrAppend(&out, "<p class=\"soft\">",
                    some ? "A picture is missing: " : "No pictures: ", Escaped(page.picture_note),
                    ".</p>\n");
  }
  out += "<div class=\"moments\">\n";
  const double best = page.moments.empty() ? 0 : page.moments[0].moment.share;
  for (const MomentPicture& shown : page.moments) {
    const WatchedMoment& moment = shown.moment;
    const std::string where = absl::StrCat(ClipTime(moment.start), " – ", ClipTime(moment.end));
    out += "<figure class=\"moment\">";
    if (!shown.jpeg.empty()) {
      absl::StrAppend(&out, "<img src=\"", JpegUrl(shown.jpeg), "\" alt=\"Frame of ",
                      Escaped(NameOf(page, moment.clip_index)), " at ", Escaped(where), "\">");
    } else if (!page.picture_note.empty()) {
      out += "<div class=\"blank\">no picture</div>";
    }
    const std::string name = page.visual_names.size() > 1 ? NameOf(page, moment.clip_index) : "";
    absl::StrAppend(&out, "<figcaption>", Escaped(where), " · ", Escaped(Percent(moment.share)),
                    name.empty() ? "" : absl::StrCat("<br>", Escaped(name)),
                    absl::StrFormat("<div class=\"meter\"><i style=\"width:%.1f%%\"></i></div>",
                                    best > 0 ? 100 * moment.share / best : 0),
                    "</figcaption></figure>\n");
  }
  return out + "</div>\n";
}

std::vector<std::pair<double, std::string>> TicksOf(const ClipTimeline& line) {
  std::vector<std::pair<double, std::string>> ticks;
  const size_t step = std::max<size_t>(1, (line.share.size() + 7) / 8);
  for (size_t i = 0; i < line.share.size(); i += step) {
    ticks.emplace_back(static_cast<double>(i),
                       ClipTime(line.start + line.bin * static_cast<int64_t>(i)));
  }
  return ticks;
}

std::string TimelineHtml(const AskPage& page, const Evidence& evidence) {
  std::string out =
      "<p class=\"soft\">Share of what the question's rows attended to that fell on each stretch "
      "of the clip, over all layers.</p>\n";
  for (const ClipTimeline& line : evidence.clips) {
    const double top = *std::max_element(line.share.begin(), line.share.end());
    ColumnChartSpec chart{
        .description = absl::StrCat("Timeline of ", NameOf(page, line.clip_index)),
        .values = line.share,
        .ticks = TicksOf(line),
        .y_label = absl::StrCat("full height: ", Percent(top), " in ", HumanDuration(line.bin)),
        .colour = ColourOf("selected"),
        .height = 130};
    std::vector<std::vector<std::string>> rows;
    for (size_t i = 0; i < line.share.size(); ++i) {
      const absl::Duration at = line.start + line.bin * static_cast<int64_t>(i);
      chart.tips.push_back(absl::StrCat(ClipTime(at), ": ", Percent(line.share[i])));
      if (line.share[i] > 0) rows.push_back({ClipTime(at), Percent(line.share[i])});
    }
    absl::StrAppend(&out, "<h3>", Escaped(NameOf(page, line.clip_index)), " · ",
                    Escaped(Percent(line.total)), "</h3>\n", ColumnChart(chart),
                    Details("The numbers", DataTable({"From", "Share"}, rows)));
  }
  if (evidence.text_share > 0 || evidence.picture_share > 0) {
    absl::StrAppend(&out, "<p class=\"soft\">Besides: ", Percent(evidence.text_share), " on text, ",
                    Percent(evidence.picture_share), " on pictures.</p>\n");
  }
  return out;
}

ChartRow RowOf(const std::string& name, const proto::BranchPairs& pairs, double dense) {
  ChartRow row{.name = name};
  double begin = 0;
  for (const auto& [branch, count] : BranchesOf(pairs)) {
    row.segments.push_back({.begin = begin,
                            .length = static_cast<double>(count),
                            .colour = ColourOf(branch),
                            .tip = absl::StrCat(branch, ": ", Grouped(count), " pairs")});
    begin += static_cast<double>(count);
  }
  row.text = dense > 0 ? Percent(begin / dense) : Grouped(static_cast<int64_t>(begin));
  return row;
}

std::string AccountHtml(const proto::AttentionReport& report) {
  const double dense = static_cast<double>(report.dense_pairs());
  std::vector<std::vector<std::string>> table;
  std::vector<std::pair<std::string, int>> key;
  for (const auto& [branch, count] : BranchesOf(report.used())) {
    table.push_back({branch, Grouped(count), Percent(dense > 0 ? count / dense : 0)});
    key.emplace_back(branch, ColourOf(branch));
  }
  table.push_back({"dense causal attention", Grouped(report.dense_pairs()), "100 %"});
  ChartRow full{.name = "dense"};
  full.segments.push_back(
      {.begin = 0, .length = dense, .colour = 5, .tip = "dense causal attention"});
  full.text = "100 %";
  std::string out = absl::StrCat("<p>", Escaped(SemanticsText(report)), " scored ",
                                 Escaped(Percent(report.budget_fraction())),
                                 " of the query-key pairs of dense causal attention");
  if (report.used().compressed() > 0) {
    absl::StrAppend(&out, ", ", Escaped(Percent(report.budget_fraction_without_compressed())),
                    " without the compression pairs");
  }
  if (report.paper_budget_fraction() > 0) {
    absl::StrAppend(&out, "; the paper's formula gives ",
                    Escaped(Percent(report.paper_budget_fraction())));
  }
  absl::StrAppend(&out,
                  ". Counted from launch shapes and chosen lists, summed over layers, per "
                  "query head.</p>\n",
                  ChartKey(key),
                  SegmentChart("Pairs scored, beside dense attention",
                               {RowOf("used", report.used(), dense), full}, dense),
                  DataTable({"Branch", "Pairs", "Of dense"}, table));
  if (report.layers_size() == 0) return out;
  std::vector<ChartRow> rows;
  double most = 0;
  for (const proto::LayerAttention& layer : report.layers()) {
    rows.push_back(RowOf(absl::StrCat("layer ", layer.layer()), layer.used(), 0));
    most = std::max(most, static_cast<double>(layer.used().compressed() + layer.used().selected() +
                                              layer.used().window() + layer.used().dense()));
  }
  return absl::StrCat(out, "<h3>By layer, pairs</h3>\n",
                      SegmentChart("Pairs scored by layer", rows, most));
}

std::string GatesHtml(const proto::AttentionReport& report) {
  std::vector<ChartLine> lines = {{"compressed", {}, ColourOf("compressed")},
                                  {"selected", {}, ColourOf("selected")},
                                  {"window", {}, ColourOf("window")}};
  std::vector<std::vector<std::string>> table;
  const auto row = [&](const std::string& name, const proto::BranchGates& gates) {
    table.push_back({name, absl::StrFormat("%.3f", gates.compressed()),
                     absl::StrFormat("%.3f", gates.selected()),
                     absl::StrFormat("%.3f", gates.window())});
  };
  for (const proto::LayerAttention& layer : report.layers()) {
    if (!layer.has_mean_gates()) continue;
    const double at = layer.layer();
    lines[0].points.emplace_back(at, layer.mean_gates().compressed());
    lines[1].points.emplace_back(at, layer.mean_gates().selected());
    lines[2].points.emplace_back(at, layer.mean_gates().window());
    row(absl::StrCat("layer ", layer.layer()), layer.mean_gates());
  }
  row("mean", report.mean_gates());
  const std::string data = DataTable({"", "Compressed", "Selected", "Window"}, table);
  if (lines[0].points.size() < 2) return data;
  return absl::StrCat(ChartKey({{"compressed", 1}, {"selected", 2}, {"window", 3}}),
                      LineChart({.description = "Mean gate of each branch by layer",
                                 .lines = lines,
                                 .x_label = "layer",
                                 .y_label = "mean gate",
                                 .y_max = 1}),
                      Details("The numbers", data));
}

std::string PhasesHtml(const proto::Timing& timing) {
  std::vector<ChartRow> rows;
  double begin = 0;
  int colour = 0;
  for (const auto& [name, time] : PhasesOf(timing)) {
    const double seconds = absl::ToDoubleSeconds(time);
    colour = colour % 8 + 1;
    rows.push_back({.name = name,
                    .segments = {{.begin = begin,
                                  .length = seconds,
                                  .colour = colour,
                                  .tip = absl::StrCat(name, ": ", HumanDuration(time))}},
                    .text = HumanDuration(time)});
    begin += seconds;
  }
  return absl::StrCat(
      SegmentChart("Phases of the answer, one after the other", rows, begin),
      "<p class=\"soft\">The server's clock. Phases are drawn one after the other; some may have "
      "run side by side, the total is ",
      Escaped(HumanDuration(FromProto(timing.total()))), ".</p>\n");
}

std::string SettingsHtml(const AskPage& page) {
  const proto::AskResult& result = page.result;
  std::vector<std::pair<std::string, std::string>> rows;
  for (int i = 0; i < result.visuals_size(); ++i) {
    const proto::VisualReport& visual = result.visuals(i);
    const std::string name =
        i < static_cast<int>(page.visual_names.size()) ? page.visual_names[i] + ": " : "";
    rows.emplace_back(absl::StrCat(visual.image() ? "picture " : "clip ", i + 1),
                      absl::StrCat(name, VisualText(visual)));
  }
  rows.emplace_back("finished", FinishText(result));
  rows.emplace_back("answer", absl::StrCat(Grouped(result.usage().output_tokens()), " tokens"));
  const proto::AttentionConfig& attention = result.attention().effective();
  std::string spent = SemanticsText(result.attention());
  if (attention.has_selected_blocks()) {
    absl::StrAppend(&spent, ", ", attention.selected_blocks(), " selected blocks");
  }
  if (attention.has_window_tokens()) {
    absl::StrAppend(&spent, ", window of ", Grouped(attention.window_tokens()), " tokens");
  }
  if (result.attention().clamped()) spent += ", lowered to the budget asked for";
  rows.emplace_back("attention", spent);
  const proto::GenerationConfig& generation = result.effective_generation();
  if (result.has_effective_generation()) {
    rows.emplace_back("sampling",
                      generation.temperature() == 0
                          ? "greedy"
                          : absl::StrFormat("temperature %.3g, top-p %.3g, top-k %d, seed %d",
                                            generation.temperature(), generation.top_p(),
                                            generation.top_k(), generation.seed()));
  }
  if (!page.question.system_instruction().empty()) {
    rows.emplace_back("system", page.question.system_instruction());
  }
  rows.emplace_back("model", result.model_version());
  rows.emplace_back("server", result.server_version());
  rows.emplace_back("request", result.ask_id());
  rows.emplace_back("asked", page.time);
  return FactsTable(rows);
}

std::string QuestionText(const proto::Question& question) {
  std::vector<std::string> texts;
  if (question.turns_size() > 0) {
    for (const proto::Part& part : question.turns(question.turns_size() - 1).parts()) {
      if (part.has_text()) texts.push_back(part.text());
    }
  }
  return absl::StrJoin(texts, " ");
}

}  // namespace

std::vector<WatchedMoment> MomentsToShow(const Evidence& evidence, size_t count) {
  std::vector<WatchedMoment> shown;
  for (const WatchedMoment& moment : evidence.moments) {
    absl::Duration apart = absl::Seconds(1);
    for (const ClipTimeline& line : evidence.clips) {
      if (line.clip_index == moment.clip_index) {
        apart = std::max(apart, (line.end - line.start) / 20);
      }
    }
    const bool near = std::any_of(shown.begin(), shown.end(), [&](const WatchedMoment& other) {
      return other.clip_index == moment.clip_index && other.start < moment.end + apart &&
             moment.start < other.end + apart;
    });
    if (!near) shown.push_back(moment);
    if (shown.size() == count) break;
  }
  return shown;
}

std::string AskHtml(const AskPage& page) {
  const Evidence evidence = BuildEvidence(page.result, kTimelineBins);
  const std::string question = QuestionText(page.question);
  const proto::AttentionReport& attention = page.result.attention();
  std::string body = absl::StrCat("<h1>", Escaped(question), "</h1>\n<p class=\"answer\">",
                                  Escaped(page.result.text()), "</p>\n", TilesHtml(page.result));
  if (!page.moments.empty()) {
    absl::StrAppend(&body, Section("moments", "Most watched moments", MomentsHtml(page)));
  }
  if (!evidence.clips.empty()) {
    absl::StrAppend(&body, Section("timeline", "Where it looked", TimelineHtml(page, evidence)));
  } else {
    absl::StrAppend(
        &body, Section("timeline", "Where it looked", "<p>The server sent no evidence.</p>\n"));
  }
  if (page.result.has_attention()) {
    absl::StrAppend(&body, Section("account", "Attention account", AccountHtml(attention)));
  }
  if (attention.has_mean_gates()) {
    absl::StrAppend(&body, Section("gates", "Gates", GatesHtml(attention)));
  }
  absl::StrAppend(&body, Section("phases", "Where the time went", PhasesHtml(page.result.timing())),
                  Section("settings", "Settings", SettingsHtml(page)),
                  "<footer>Written by videonsa. This page needs no network.</footer>\n");
  return HtmlPage(question.empty() ? "Answer" : question, body);
}

}  // namespace videonsa::client
