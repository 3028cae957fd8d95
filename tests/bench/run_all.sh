#!/bin/sh
# Runs the benchmarks that need nothing but the build, one after the other, and prints their tables. The ones that
# compare with other programs are run by hand: model/peer_transformers.py, media_vs_peers.py, text_vs_tokenizers.py,
# peer_released_torch.py (each says at its top what it needs).
# Usage: run_all.sh BUILD_DIR
set -u
build=$1
status=0
uname -sr
grep -m1 'model name' /proc/cpuinfo
date -u +%F
run() {
  echo
  echo "== $*"
  "$@" || status=1
}
run "$build/bin/model_bench" tests/bench/model/dummy_1024.json --tokens 4096
run "$build/bin/attention_bench" dense released causal table
run "$build/bin/scheduler_bench"
run "$build/bin/engine_bench" overhead
run "$build/bin/engine_bench" batch tests/bench/model/dummy_1024.json
run "$build/bin/engine_bench" interference tests/bench/engine/dummy_256.json
run "$build/bin/videonsa-sim"
run "$build/bin/server_overhead_bench"
run "$build/bin/openai_overhead_bench"
run "$build/bin/text_bench" deploy/demo_model/weights
exit $status
