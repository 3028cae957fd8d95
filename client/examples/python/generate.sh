#!/bin/sh
# Generates the Python stubs of the protocol into ./stubs, beside ask.py.
#
#   python3 -m venv .venv && .venv/bin/pip install grpcio grpcio-tools googleapis-common-protos
#   PYTHON=.venv/bin/python ./generate.sh
#
# On Debian 12 the packages python3-grpcio, python3-grpc-tools and python3-googleapis do as well.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../..}
out=${2:-$here/stubs}
mkdir -p "$out"
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$root/proto" \
  --python_out="$out" --grpc_python_out="$out" \
  videonsa/v1/common.proto videonsa/v1/clip.proto videonsa/v1/server.proto \
  videonsa/v1/video_qa.proto
# google.rpc error details, under a name of their own if googleapis-common-protos is missing.
"${PYTHON:-python3}" -c 'import google.rpc.error_details_pb2' 2>/dev/null ||
  "${PYTHON:-python3}" -m grpc_tools.protoc -I "$root/proto/third_party" --python_out="$out" \
    google/rpc/status.proto google/rpc/error_details.proto
echo "stubs in $out"
