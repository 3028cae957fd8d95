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
ask "$root/tests/data/e2e/stream-of-water.mp4" "What color is the object?"
cat <<'TEXT'

The bundled model is a tiny one trained on rendered shapes for minutes: the path, the report and the
budget above are real, the words are not to be trusted. For real answers give the server real weights:
  make serve MODEL=/path/to/a/Qwen2.5-VL/or/VideoNSA/folder
TEXT
