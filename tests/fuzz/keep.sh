#!/bin/sh
# Keeps what the fuzz targets have learnt: of build/fuzz/corpus a smallest set of inputs that covers what all do, the 64 smallest of at
# most 4 KiB a target, goes into tests/fuzz/corpus beside the seeds written by hand. `make test` replays them.
# Usage: keep.sh [TARGET...]   (after `make fuzz`; media keeps its few clips)
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- url safetensors config request upload tokenizer_json image chat
for target in "$@"; do
  program="build/fuzz/tests/${target}_fuzzer"
  learnt="build/fuzz/corpus/${target}_fuzzer"
  kept="tests/fuzz/corpus/$target"
  if [ ! -x "$program" ] || [ ! -d "$learnt" ]; then
    echo "$target: was not run"
    continue
  fi
  mkdir -p "$kept"
  work=$(mktemp -d)
  mkdir "$work/seeds" "$work/out"
  xargs -d '\n' cp -t "$work/seeds" <"$program.seeds"
  find "$kept" -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
  cp "$work/seeds"/* "$work/out/"
  "$program" -set_cover_merge=1 -max_len=4096 "$work/out" "$learnt" >"$work/log" 2>&1 || { tail -5 "$work/log" >&2; exit 1; }
  find "$work/out" -regextype posix-extended -regex '.*/[0-9a-f]{40}' -size -4097c -printf '%s %p\n' | sort -n | head -64 | cut -d' ' -f2 \
    | xargs -r cp -t "$kept"
  echo "$target: $(find "$learnt" -type f | wc -l) learnt, $(find "$kept" -type f | wc -l) kept, $(du -sb "$kept" | cut -f1) bytes"
  rm -rf "$work"
done
