#!/bin/sh
# Renders new clips from a seed, starts the server, asks it over gRPC and prints accuracy by question type. Exits 1 below the targets.
# Usage: run.sh BUILD_DIR SEED [options of accuracy.py]; SERVER=host:port asks a server that already runs.
set -eu
build=$1
seed=$2
shift 2
root=$(cd "$(dirname "$0")/../../.." && pwd)
venv="$root/.venv"
if ! "$venv/bin/python" -c "import torch, grpc_tools, PIL, numpy" 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0 numpy pillow grpcio grpcio-tools
fi
work=$(mktemp -d)
server_pid=""
cleanup() {
  [ -n "$server_pid" ] && kill "$server_pid" 2>/dev/null && wait "$server_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM
cd "$root"
"$venv/bin/python" -m grpc_tools.protoc -I proto -I proto/third_party --python_out="$work" --grpc_python_out="$work" \
  proto/videonsa/v1/common.proto proto/videonsa/v1/clip.proto proto/videonsa/v1/video_qa.proto
address=${SERVER:-}
if [ -z "$address" ]; then
  "$build/bin/videonsa-server" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --clip-dir "$work/clips" ${MODEL:+--model "$MODEL"} >"$work/server.out" 2>"$work/server.log" &
  server_pid=$!
  for _ in $(seq 300); do
    address=$(sed -n 's/.*ready on \([^ ]*\).*/\1/p' "$work/server.out" | head -1)
    [ -n "$address" ] && break
    kill -0 "$server_pid" 2>/dev/null || { cat "$work/server.out" "$work/server.log" >&2; exit 1; }
    sleep 0.1
  done
  [ -n "$address" ] || { echo "the server did not become ready in 30 s" >&2; exit 1; }
fi
PYTHONPATH="$work:$root" "$venv/bin/python" tests/e2e/accuracy/accuracy.py --address "$address" --seed "$seed" --work "$work/set" "$@"
