#!/usr/bin/env python3
"""Draws dashboard.json without Grafana: the same panels from the same queries, evaluated by a Prometheus.

Usage: render.py PROMETHEUS_URL OUT.png [--minutes N]. Needs matplotlib (Debian: python3-matplotlib). Prints every
panel that has no data; exits 1 if a query is refused.
"""
import argparse
import datetime
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
from matplotlib import dates, pyplot, ticker  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
WIDTH_INCHES, UNIT_INCHES = 19, 0.36
FORMATS = {"percentunit": lambda v, _: f"{100 * v:.3g} %", "s": lambda v, _: f"{v:.3g} s", "bytes": lambda v, _: f"{v / 2**30:.3g} GiB" if v >= 2**30 else f"{v / 2**20:.3g} MiB",
           "reqps": lambda v, _: f"{v:.3g}/s", "ops": lambda v, _: f"{v:.3g}/s"}


def short(value, _):
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def query(url, expr, begin, end, step):
    """The series of one query, as Grafana would send it with every variable at "All"."""
    expr = expr.replace("$__rate_interval", f"{4 * step}s").replace("$job", ".*").replace("$instance", ".*")
    form = urllib.parse.urlencode({"query": expr, "start": begin, "end": end, "step": step}).encode()
    try:
        answer = json.load(urllib.request.urlopen(f"{url}/api/v1/query_range", form, timeout=30))
    except urllib.error.HTTPError as error:
        sys.exit(f"refused: {expr}\n{error.read().decode()}")
    return answer["data"]["result"]


def points(series):
    times = [datetime.datetime.fromtimestamp(float(t), datetime.timezone.utc) for t, _ in series["values"]]
    return times, [float(v) for _, v in series["values"]]


def name_of(target, series):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series["metric"].get(found[1], ""), target["legendFormat"])


def draw(axes, panel, url, span):
    """Draws one panel; true if there was any data."""
    defaults = panel["fieldConfig"]["defaults"]
    lines = [(name_of(t, s), *points(s)) for t in panel["targets"] for s in query(url, t["expr"], *span)]
    lines = [(name, x, y) for name, x, y in lines if any(v == v for v in y)]
    found = bool(lines)
    top = max([v for _, _, y in lines for v in y if v == v], default=0)
    if top > 0:  # series that stay at zero would only fill the legend
        lines = [line for line in lines if any(v > 0 for v in line[2])]
    if defaults["custom"].get("stacking", {}).get("mode") == "normal" and lines:
        x = sorted({t for _, times, _ in lines for t in times})
        columns = [[dict(zip(times, values)).get(t, 0) for t in x] for _, times, values in lines]
        axes.stackplot(x, columns, labels=[name for name, _, _ in lines], alpha=0.7, linewidth=0)
    else:
        for name, x, y in lines:
            axes.plot(x, y, label=name, linewidth=1.3, marker="." if len(x) < 3 else None)
    axes.set_title(panel["title"], fontsize=9, loc="left")
    axes.set_xlim(*[datetime.datetime.fromtimestamp(t, datetime.timezone.utc) for t in span[:2]])
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(FORMATS.get(defaults["unit"], short)))
    axes.xaxis.set_major_locator(ticker.LinearLocator(4))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_ylim(bottom=0, top=None if top > 0 else 1)
    if top <= 0:
        axes.set_yticks([])
    if top > 0:
        axes.legend(fontsize=6, loc="upper left", ncol=2 if len(lines) > 4 else 1, framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "all zero" if found else "no data", transform=axes.transAxes, ha="center", va="center", color="grey")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--step", type=int, default=5, help="seconds; Prometheus must scrape at least as often")
    args = parser.parse_args()
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"])
    figure = pyplot.figure(figsize=(WIDTH_INCHES, height * UNIT_INCHES))
    end = time.time()
    span = (end - 60 * args.minutes, end, args.step)
    empty = []
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        top = 1 - grid["y"] / height
        if panel["type"] == "row":
            figure.text(0.01, top - 0.75 / height, panel["title"], fontsize=12, weight="bold", va="center")
            continue
        box = (grid["x"] / 24 + 0.028, top - (grid["h"] - 0.9) / height, grid["w"] / 24 - 0.036, (grid["h"] - 1.9) / height)
        if not draw(figure.add_axes(box), panel, args.url, span):
            empty.append(panel["title"])
    figure.savefig(args.out, dpi=60)
    print(f"{args.out}: {sum(p['type'] != 'row' for p in dashboard['panels'])} panels, without data: {', '.join(empty) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
