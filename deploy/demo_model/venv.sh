#!/bin/sh
# Makes .venv with what training, rendering and the accuracy table need, if it is not there; prints its python.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.venv"
if ! "$venv/bin/python" -c "import torch, tokenizers, safetensors, grpc_tools, PIL, numpy" 2>/dev/null; then
  echo "installing PyTorch and friends into $venv (once)" >&2
  { python3 -m venv "$venv" || python3 -m virtualenv "$venv"; } >&2
  "$venv/bin/pip" install -q torch==2.13.0 tokenizers safetensors numpy pillow grpcio grpcio-tools >&2
fi
echo "$venv/bin/python"
