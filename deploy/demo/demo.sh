#!/bin/sh
# Starts a server on a free port, asks it about clips, prints answers and reports, stops it.
# Usage: demo.sh BUILD_DIR; CLIP and QUESTION in the environment replace the bundled questions.
set -eu
build=$1
bin="$build/bin"
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
server_pid=""
cleanup() {
  [ -n "$server_pid" ] && kill "$server_pid" 2>/dev/null && wait "$server_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM

"$bin/videonsa-server" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
  --clip-dir "$work/clips" ${MODEL:+--model "$MODEL"} >"$work/server.out" 2>"$work/server.log" &
server_pid=$!
for _ in $(seq 300); do
  address=$(sed -n 's/.*ready on \([^ ]*\).*/\1/p' "$work/server.out" | head -1)
  [ -n "$address" ] && break
  kill -0 "$server_pid" 2>/dev/null || { cat "$work/server.out" "$work/server.log" >&2; exit 1; }
  sleep 0.1
done
[ -n "$address" ] || { echo "the server did not become ready in 30 s" >&2; cat "$work/server.log" >&2; exit 1; }
cat "$work/server.out"

ask() {
  echo
  echo "\$ videonsa ask $(basename "$1") -q \"$2\""
  "$bin/videonsa" ask "$1" -q "$2" --server "$address" --evidence
}

if [ -n "${CLIP:-}" ]; then
  ask "$CLIP" "${QUESTION:-What happens in this clip?}"
  exit 0
fi
ask "$root/deploy/demo/clips/diamond.mp4" "Which color does the diamond have?"
ask "$root/deploy/demo/clips/sign.mp4" "What can you read on the sign?"
ask "$root/deploy/demo/clips/triangle.mp4" "In which direction does the blue triangle move?"
ask "$root/tests/data/e2e/stream-of-water.mp4" "What color is the object?"
cat <<'TEXT'

The right answers to the first three are green, LAKE and in a circle. The last clip is natural video, of
which the bundled model knows nothing: it was trained on rendered shapes only. For natural video give the
server real weights:
  make serve MODEL=/path/to/a/Qwen2.5-VL/or/VideoNSA/folder
TEXT
