#!/bin/sh
# Generates the Go stubs of the protocol into ./gen, beside ask.go.
#
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@latest google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest
#   ./generate.sh && go mod tidy
#
# On Debian 12 the packages protobuf-compiler, protoc-gen-go and protoc-gen-go-grpc do as well.
# Usage: generate.sh [PROTO_DIR [OUT_DIR]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proto=${1:-$here/../../../proto}
out=${2:-$here/gen}
files="videonsa/v1/common.proto videonsa/v1/clip.proto videonsa/v1/server.proto videonsa/v1/video_qa.proto"
options=""
for file in $files; do
  options="$options --go_opt=M$file=videonsa.example/ask/gen --go-grpc_opt=M$file=videonsa.example/ask/gen"
done
mkdir -p "$out"
# shellcheck disable=SC2086
protoc -I "$proto" --go_out="$out" --go-grpc_out="$out" --go_opt=module=videonsa.example/ask/gen --go-grpc_opt=module=videonsa.example/ask/gen \
  $options $files
echo "stubs in $out"
