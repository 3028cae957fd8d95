#!/bin/sh
# Renders new clips from a seed, starts the server, asks it over gRPC and prints accuracy by question type. Exits 1 below the targets.
# Usage: run.sh BUILD_DIR SEED [options of accuracy.py]; SERVER=host:port asks a server that already runs.
set -eu
build=$1
seed=$2
shift 2
root=$(cd "$(dirname "$0")/../../.." && pwd)
python=$("$root/deploy/demo_model/venv.sh")
work=$(mktemp -d)
server_pid=""
cleanup() {
  [ -n "$server_pid" ] && kill "$server_pid" 2>/dev/null && wait "$server_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM
cd "$root"
"$python" -m grpc_tools.protoc -I proto -I proto/third_party --python_out="$work" --grpc_python_out="$work" \
  proto/videonsa/v1/common.proto proto/videonsa/v1/clip.proto proto/videonsa/v1/video_qa.proto
address=${SERVER:-}
if [ -z "$address" ]; then
  "$build/bin/videonsa-server" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --clip-dir "$work/clips" --max-frames 4096 --max-context 40000 --kv-bytes 160M ${MODEL:+--model "$MODEL"} >"$work/server.out" 2>"$work/server.log" &
  server_pid=$!
  for _ in $(seq 300); do
    address=$(sed -n 's/.*ready on \([^ ]*\).*/\1/p' "$work/server.out" | head -1)
    [ -n "$address" ] && break
    kill -0 "$server_pid" 2>/dev/null || { cat "$work/server.out" "$work/server.log" >&2; exit 1; }
    sleep 0.1
  done
  [ -n "$address" ] || { echo "the server did not become ready in 30 s" >&2; exit 1; }
fi
PYTHONPATH="$work:$root" "$python" tests/e2e/accuracy/accuracy.py --address "$address" --pid "${server_pid:-0}" --seed "$seed" --work "$work/set" "$@"
