#include "client/report/html.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

// Branch colours keep their distance for colour-blind readers; s1..s8 are used by charts.
constexpr char kStyle[] = R"css(
:root{color-scheme:light dark;--bg:#fbfaf7;--card:#ffffff;--ink:#1d2129;--soft:#5a6270;
--line:#e3e0d8;--grid:#ebe8e1;--accent:#0b63b0;--accent-soft:#dbeafa;--good:#1a7f47;--bad:#b3261e;
--s1:#2f6fb3;--s2:#d9822b;--s3:#2a9578;--s4:#a8559a;--s5:#7a869a;--s6:#b89b1c;--s7:#5d5bb5;--s8:#b94a48;}
@media(prefers-color-scheme:dark){:root{--bg:#14171c;--card:#1c2027;--ink:#e8eaee;--soft:#a2abb9;
--line:#2e343e;--grid:#2a2f38;--accent:#7db9f5;--accent-soft:#1d3550;--good:#6fd39b;--bad:#ff8a80;
--s1:#6aa9ec;--s2:#f0a65a;--s3:#58c7a6;--s4:#d38cc7;--s5:#98a4b8;--s6:#dcc253;--s7:#9a98ee;--s8:#ec8583;}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.15rem;font-weight:600;color:var(--soft);margin:0 0 .6rem;line-height:1.4}
h2{font-size:1.05rem;margin:0 0 .9rem;letter-spacing:.01em}
h3{font-size:.95rem;margin:1.2rem 0 .4rem}
p{margin:.4rem 0 .8rem}
.answer{font-size:1.45rem;line-height:1.45;white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 1.4rem;
padding-left:1rem;border-left:4px solid var(--accent)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.25rem 1.4rem;
margin:0 0 1.1rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:0 0 1.1rem}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.35rem;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.25}
.tile span{color:var(--soft);font-size:.85rem}
.moments{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1rem}
figure{margin:0}
figure.moment img{width:100%;aspect-ratio:16/9;object-fit:contain;border-radius:8px;display:block;background:#000}
figure.moment .blank{aspect-ratio:16/9;border-radius:8px;border:1px dashed currentColor;opacity:.35;display:grid;place-items:center;font-size:.88rem}
figure.moment figcaption{font-size:.88rem;margin-top:.35rem;font-variant-numeric:tabular-nums}
.meter{height:6px;border-radius:3px;background:var(--grid);margin-top:.3rem;overflow:hidden}
.meter i{display:block;height:100%;background:var(--accent);border-radius:3px}
.chart{overflow-x:auto;margin:.2rem 0 .4rem}
.chart svg{display:block;width:100%;min-width:34rem;height:auto}
svg text{fill:var(--soft);font:12px system-ui,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;
font-variant-numeric:tabular-nums}
svg text.ink{fill:var(--ink)} svg .grid{stroke:var(--grid)} svg .axis{stroke:var(--soft)}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;font-size:.88rem;color:var(--soft);margin:.1rem 0 .5rem;
padding:0;list-style:none}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.45em;vertical-align:-.05em}
.soft{color:var(--soft);font-size:.9rem} .good{color:var(--good)} .bad{color:var(--bad)}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.32rem .7rem .32rem 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
th{font-weight:600;color:var(--soft)}
table.data td:not(:first-child),table.data th:not(:first-child){text-align:right;padding:.32rem 0 .32rem .7rem;
white-space:nowrap}
table.data td:first-child{min-width:9rem;overflow-wrap:normal}
table.facts th{width:14rem;font-weight:400}
.wide{overflow-x:auto}
details{margin-top:.6rem} summary{cursor:pointer;color:var(--accent);font-size:.9rem}
summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.f1{fill:var(--s1);background:var(--s1)}.f2{fill:var(--s2);background:var(--s2)}
.f3{fill:var(--s3);background:var(--s3)}.f4{fill:var(--s4);background:var(--s4)}
.f5{fill:var(--s5);background:var(--s5)}.f6{fill:var(--s6);background:var(--s6)}
.f7{fill:var(--s7);background:var(--s7)}.f8{fill:var(--s8);background:var(--s8)}
.l1{stroke:var(--s1)}.l2{stroke:var(--s2)}.l3{stroke:var(--s3)}.l4{stroke:var(--s4)}
.l5{stroke:var(--s5)}.l6{stroke:var(--s6)}
footer{color:var(--soft);font-size:.85rem;margin-top:1.6rem}
@media(max-width:34rem){main{padding:1.2rem .8rem 3rem}section{padding:1rem}.answer{font-size:1.2rem}
table.facts th{width:8rem}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
)css";

}  // namespace

std::string Escaped(absl::string_view text) {
  std::string out;
  for (const char c : PrintableText(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string HtmlPage(absl::string_view title, absl::string_view body) {
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'\">\n<title>",
      Escaped(title), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<main>\n", body,
      "</main>\n</body>\n</html>\n");
}

std::string Section(absl::string_view id, absl::string_view heading, absl::string_view body) {
  return absl::StrCat("<section aria-labelledby=\"", id, "\">\n<h2 id=\"", id, "\">",
                      Escaped(heading), "</h2>\n", body, "</section>\n");
}

std::string FactsTable(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string out = "<table class=\"facts\"><tbody>\n";
  for (const auto& [name, value] : rows) {
    absl::StrAppend(&out, "<tr><th scope=\"row\">", Escaped(name), "</th><td>", Escaped(value),
                    "</td></tr>\n");
  }
  return out + "</tbody></table>\n";
}

std::string DataTable(const std::vector<std::string>& head,
                      const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"wide\"><table class=\"data\"><thead><tr>";
  for (const std::string& cell : head) {
    absl::StrAppend(&out, "<th scope=\"col\">", Escaped(cell), "</th>");
  }
  out += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) absl::StrAppend(&out, "<td>", Escaped(cell), "</td>");
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string Details(absl::string_view summary, absl::string_view body) {
  return absl::StrCat("<details><summary>", Escaped(summary), "</summary>\n", body, "</details>\n");
}

std::string JpegUrl(absl::string_view jpeg) {
  return absl::StrCat("data:image/jpeg;base64,", absl::Base64Escape(jpeg));
}

}  // namespace videonsa::client
