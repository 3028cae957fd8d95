#!/usr/bin/env python3
"""Checks rules and dashboard against the metrics that a running server really exports.

Usage: observability.py BIN_DIR. Starts the server, makes a few calls, reads /metrics and then requires: every metric that a
rule or panel names is exported, with the labels, and for closed sets the values, that its query matches; every query parses
(promtool); every alert has a section in the runbook and a test in which it fires. Exits 1 and prints one line a violation.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import metrics_page  # noqa: E402
import processes  # noqa: E402

RULES = ROOT / "deploy/prometheus/rules.yaml"
DASHBOARD = ROOT / "deploy/observability/dashboard.json"
WORDS = {"sum", "rate", "by", "histogram_quantile", "clamp_min", "max", "min", "avg", "increase", "deriv", "and", "or", "round", "on", "unless",
         "without", "ignoring", "humanize"}
FROM_PROMETHEUS = {"up"}
FROM_GPU = {row[0] for row in metrics_page.WITH_GPU}
OPEN_LABELS = {"job", "instance", "le", "__name__"}  # set by the scrape or by the type


def scrape(bin_dir):
    """metric -> label -> values, as a server exports them after a question and a refusal."""
    with processes.workplace() as work, processes.server(bin_dir, work) as server:
        ask = [str(bin_dir / "videonsa"), "ask", "--server", server.address, "--max-tokens", "4", "-q"]
        subprocess.run([*ask, "What is it?", str(ROOT / "deploy/demo/clips/diamond.mp4")], capture_output=True, check=True)
        subprocess.run([*ask, "What is it?", "clips/none"], capture_output=True, check=False)
        text = urllib.request.urlopen(f"http://{server.port('metrics')}/metrics", timeout=10).read().decode()
    found = {}
    for line in text.splitlines():
        match = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line)
        if match and not line.startswith("#"):
            labels = found.setdefault(match[1], {})
            for name, value in re.findall(r'(\w+)="([^"]*)"', match[2] or ""):
                labels.setdefault(name, set()).add(value)
    return found


def selectors(expr):
    """(metric, [(label, operator, value)]) of every selector, and the labels that `by` names with it."""
    plain = re.sub(r'"[^"]*"', '""', expr)
    for match in re.finditer(r"[a-zA-Z_:][\w:]*", plain):
        name = match[0]
        after = plain[match.end():].lstrip()
        if name in WORDS or after.startswith("(") or plain[:match.start()].rstrip().endswith(("[", "$")):
            continue
        if re.search(r"(by|without|on|ignoring) \([^)]*$", plain[:match.start()]) or re.search(r"\{[^}]*$", plain[:match.start()]):
            continue
        if plain[match.start() - 1:match.start()].isdigit():  # 1e, 5m
            continue
        yield name


def matchers(expr, metric):
    for body in re.findall(re.escape(metric) + r"\{([^}]*)\}", expr):
        yield from re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', body)


def check_expr(where, expr, exported, recorded):
    for metric in set(selectors(expr)):
        if metric in recorded or metric in FROM_PROMETHEUS or metric in FROM_GPU:
            continue
        if metric not in exported:
            yield f"{where}: no metric {metric}"
            continue
        for label, operator, value in matchers(expr, metric):
            if label in OPEN_LABELS:
                if label == "le" and value not in exported[metric].get("le", ()):
                    yield f"{where}: {metric} has no bucket le=\"{value}\""
                continue
            values = exported[metric].get(label)
            if values is None:
                yield f"{where}: {metric} has no label {label}"
            elif operator in ("=", "!=") and value not in values and label != "grpc_status":
                yield f"{where}: {metric} never has {label}=\"{value}\", only {sorted(values)}"
    for names in re.findall(r"by \(([^)]*)\)", expr):
        have = set().union(*(exported[m] for m in selectors(expr) if m in exported), OPEN_LABELS)
        for name in filter(None, (n.strip() for n in names.split(","))):
            if name not in have and any(m in exported for m in selectors(expr)):
                yield f"{where}: groups by {name}, which no metric of it has"


def promtool_parses(named):
    """Every query as a recording rule, so that promtool reads it."""
    rules = [{"record": f"check:{i}", "expr": expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")}
             for i, (_, expr) in enumerate(named)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "check", "rules": rules}]}, file)
        file.flush()
        ran = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        yield f"promtool: {ran.stderr.strip()}"


def check_alerts(rules):
    runbook = (ROOT / "deploy/RUNBOOK.md").read_text()
    sections = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^## (.*)$", runbook, re.M)}
    tests = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    recorded = "".join(case["expr"] for test in tests for case in test.get("promql_expr_test", []))
    for rule in rules:
        if "record" in rule and rule["record"] not in recorded and rule["record"] != "videonsa:requests:rate5m":
            yield f"{rule['record']}: no test"
        if "alert" not in rule:
            continue
        notes = rule["annotations"]
        for needed in ("summary", "description", "runbook_url"):
            if needed not in notes:
                yield f"{rule['alert']}: no {needed}"
        if notes.get("runbook_url", "").partition("#")[2] not in sections:
            yield f"{rule['alert']}: no section {notes.get('runbook_url')}"
        if rule["labels"].get("severity") not in ("page", "ticket"):
            yield f"{rule['alert']}: severity {rule['labels'].get('severity')}"
        if rule["alert"] not in fired:
            yield f"{rule['alert']}: no test in which it fires"


def check_dashboard(dashboard):
    ids = [p["id"] for p in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "dashboard: an id twice"
    for panel in dashboard["panels"]:
        if panel["type"] != "row" and not (panel.get("description") and panel["fieldConfig"]["defaults"].get("unit")):
            yield f"panel {panel['title']}: no description or unit"


def main():
    bin_dir = pathlib.Path(sys.argv[1]).resolve()
    rules = [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    dashboard = json.loads(DASHBOARD.read_text())
    named = [(r.get("record") or r["alert"], r["expr"]) for r in rules]
    named += [(f"panel {p['title']}", t["expr"]) for p in dashboard["panels"] for t in p.get("targets", [])]
    exported = scrape(bin_dir)
    recorded = {r["record"] for r in rules if "record" in r}
    problems = [p for where, expr in named for p in check_expr(where, expr, exported, recorded)]
    problems += [*promtool_parses(named), *check_alerts(rules), *check_dashboard(dashboard)]
    # The check itself must see what it is there for.
    for spoiled in ("rate(videonsa_no_such_total[5m])", 'videonsa_requests_total{phase="x"}', 'videonsa_requests_total{finish_reason="x"}',
                    "sum by (phase) (videonsa_requests_total)"):
        if not list(check_expr("self-test", spoiled, exported, recorded)):
            problems.append(f"the check does not see what is wrong with {spoiled}")
    print("\n".join(problems) if problems else f"observability: {len(named)} queries over {len(exported)} series names hold, "
          f"{sum('alert' in r for r in rules)} alerts tested")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
