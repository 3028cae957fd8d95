#!/usr/bin/env python3
"""Compares deploy/METRICS.md with what a loaded server and its front really export.

Usage: metrics_page.py [--write] BIN_DIR. Starts both, asks questions (one of them refused), scrapes, and requires: every exported
name stands on the page with its type, labels and meaning, every name on the page is exported, promtool finds nothing to say, and
what a question must leave behind is there. --write writes the page instead. Exits 1 and prints one line a difference.
"""
import pathlib
import re
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import processes  # noqa: E402

PAGE = ROOT / "deploy/METRICS.md"
# Labels whose values are a closed set, made at start.
CLOSED = {"state", "reason", "phase", "stage", "kind", "branch", "cause", "outcome", "priority", "cache", "mode", "finish_reason", "level", "quota",
          "file", "pool"}
# Exported only by a server that has a GPU; metric_sets.cc makes them, a unit test sees them.
WITH_GPU = [("videonsa_gpu_memory_bytes", "gauge", "device, pool=kv\\|other\\|weights, worker",
             "Memory of a worker's first GPU that this server has allocated; each of several ranks holds as much.")]
HEAD = """# Metrics

What `/metrics` exports, by name. Written by `tests/deploy/metrics_page.py --write`; a test compares it with a running server and its front.
Seconds, bytes and ratios from 0 to 1; histograms have `_bucket`, `_sum` and `_count`. No label names a clip, a session or a text, and none a tenant unless
`--metrics-tenants` says so. Children are made at start, so what has not happened yet is 0, but for calls (by method and status), which appear
with the first of their kind. `observability/dashboard.json` shows them, `prometheus/rules.yaml` watches them.
"""


def scrape(address):
    return urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()


def families(text):
    """[(name, type, labels, help)] as exported."""
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    rows = []
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        labels = {}
        for body in re.findall(rf"^{name}(?:_bucket|_sum|_count)?\{{(.*)\}} ", text, re.M):
            for label, value in re.findall(r'(\w+)="([^"]*)"', body):
                if label not in ("le", "quantile"):
                    labels.setdefault(label, set()).add(value)
        shown = [label + ("=" + "\\|".join(sorted(values)) if label in CLOSED else "") for label, values in sorted(labels.items())]
        rows.append((name, kind, ", ".join(shown), helps[name]))
    return sorted(rows)


def table(rows):
    return "\n".join(["| Metric | Type | Labels | Meaning |", "| --- | --- | --- | --- |", *(f"| `{n}` | {k} | {l} | {h} |" for n, k, l, h in rows)])


def page(server, front):
    return "\n\n".join([HEAD.rstrip(), "## videonsa-server", table(families(server)), "## videonsa-server with a GPU", table(WITH_GPU),
                        "## videonsa-openai", table(families(front))]) + "\n"


def load(bin_dir):
    """The text of /metrics of a server and its front after a few questions."""
    with processes.workplace() as work, processes.server(bin_dir, work, "--metrics-tenants", "1", "--trace-file",
                                                         pathlib.Path(work) / "trace.json") as server:
        ask = [str(bin_dir / "videonsa"), "ask", "--server", server.address, "--max-tokens", "4", "-q"]
        clip = str(ROOT / "deploy/demo/clips/diamond.mp4")
        subprocess.run([*ask, "What is it?", "--evidence", clip], capture_output=True, check=True)
        subprocess.run([*ask, "What is it?", "clips/none"], capture_output=True, check=False)
        with processes.front(bin_dir, work, server.address) as front:
            urllib.request.urlopen(f"http://{front.address}/v1/models", timeout=10).read()
            return scrape(server.port("metrics")), scrape(front.address)


def value(text, series):
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
    return float(found[1]) if found else None


def must_have_happened(text):
    """What one answered and one refused question leave behind."""
    ask = '{grpc_method="videonsa.v1.VideoQaService/AskStream",grpc_status="OK"}'
    for series, least in ((f"grpc_server_call_rcvd_total_compressed_message_size_bytes_sum{ask}", 1000),
                          (f"grpc_server_call_sent_total_compressed_message_size_bytes_sum{ask}", 100),
                          ("videonsa_request_selected_coverage_ratio_count", 1),
                          ("videonsa_request_selected_coverage_ratio_sum", 0.001),
                          ("videonsa_output_tokens_total", 1),
                          ('videonsa_tenant_calls_total{tenant="other"}', 2),
                          ("videonsa_cuda_errors_total{kind=\"device_lost\"}", 0)):
        got = value(text, series)
        if got is None or got < least:
            yield f"{series} is {got}, expected at least {least}"


def main():
    bin_dir = pathlib.Path(sys.argv[-1]).resolve()
    server, front = load(bin_dir)
    made = page(server, front)
    if "--write" in sys.argv:
        PAGE.write_text(made)
        return 0
    problems = list(must_have_happened(server))
    want, have = PAGE.read_text().splitlines(), made.splitlines()
    problems += [f"not on the page: {line}" for line in have if line not in want]
    problems += [f"not exported: {line}" for line in want if line not in have]
    source = (ROOT / "runtime/telemetry/metric_sets.cc").read_text()
    problems += [f"no code makes {row[0]}" for row in WITH_GPU if row[0] not in source]
    for text in (server, front):
        told = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        problems += [f"promtool: {line}" for line in (told.stdout + told.stderr).splitlines()]
    print("\n".join(problems) if problems else f"metrics page: {len(families(server)) + len(families(front))} metrics, all as exported")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
