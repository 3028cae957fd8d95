#!/bin/sh
# Starts a server, a front and a Prometheus, loads them for a few minutes with `videonsa bench`, and draws the dashboard from what
# Prometheus saw. Needs Debian's prometheus and python3-matplotlib.
# Usage: load_run.sh BUILD_DIR OUT.png [SECONDS]
set -eu
build=$(cd "$1" && pwd)
out=$2
seconds=${3:-180}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
pids=""
cleanup() {
  for pid in $pids; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT INT TERM
"$build/bin/videonsa-server" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --clip-dir "$work/clips" \
  --kv-bytes 64M >"$work/server.out" 2>"$work/server.log" &
pids="$pids $!"
for _ in $(seq 300); do
  grep -q 'ready on' "$work/server.out" && break
  sleep 0.1
done
address=$(sed -n 's/.*ready on \([^ ]*\).*/\1/p' "$work/server.out")
metrics=$(sed -n 's/.*metrics on \([^ ,)]*\).*/\1/p' "$work/server.out")
cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 2s, evaluation_interval: 5s}
rule_files: [$root/deploy/prometheus/rules.yaml]
scrape_configs:
  - job_name: videonsa
    static_configs: [{targets: ["$metrics"]}]
YAML
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address=127.0.0.1:19097 --log.level=warn \
  >"$work/prometheus.log" 2>&1 &
pids="$pids $!"

bench() {
  "$build/bin/videonsa" bench "$@" --server "$address" --quiet >>"$work/bench.txt" 2>&1 || true
}
clips="$root/deploy/demo/clips"
quarter=$((seconds / 4))
# One question a second, six callers with several clips, eight a second of which a tenth is cancelled, two a second.
bench "$clips/diamond.mp4" -q "Which color does the diamond have?" --rate 1 --duration "${quarter}s"
"$build/bin/videonsa" ask "$clips/sign.mp4" -q "What can you read on the sign?" --server "$address" --evidence --gates >/dev/null 2>&1 || true
bench "$clips/diamond.mp4" "$clips/sign.mp4" "$clips/triangle.mp4" -q "What happens?" --concurrency 6 --max-tokens 64 --duration "${quarter}s"
"$build/bin/videonsa" ask "$root/tests/data/e2e/bad-video/corrupted.mp4" -q "What?" --server "$address" >/dev/null 2>&1 || true
bench "$clips/sign.mp4" -q "What can you read on the sign?" --rate 8 --cancel-rate 0.1 --max-inflight 48 --max-tokens 32 --duration "${quarter}s"
bench "$clips/triangle.mp4" -q "In which direction does the blue triangle move?" --rate 2 --duration "${quarter}s"
cat "$work/bench.txt"
/usr/bin/python3 "$here/render.py" http://127.0.0.1:19097 "$out" --minutes "$((seconds / 60 + 1))"
