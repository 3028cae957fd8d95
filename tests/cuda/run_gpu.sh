#!/bin/sh
# Kernel checks, golden checks and times of the 7B shape with random weights on this machine's GPU;
# prints a short table last. Needs a build with the CUDA worker and libcublasLt.so.13 in the library
# path; not gRPC, and FFmpeg only for what is asked about clips. Ends within ten minutes.
# Usage: tests/cuda/run_gpu.sh BIN_DIR [--goldens DIR] [--demo MODEL_DIR] [--no-kernels] [--quick] [--no-times]
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
bin=$1
shift
goldens="" kernels=1 quick=0 times=1
demo="$here/deploy/demo_model/weights"
config="$here/tests/bench/model/dummy_7b.json"
while [ $# -gt 0 ]; do
  case $1 in
    --goldens) goldens=$2; shift ;;
    --demo) demo=$2; shift ;;
    --no-kernels) kernels=0 ;;
    --quick) quick=1 ;;
    --no-times) times=0 ;;
    *) echo "run_gpu.sh: unknown option $1" >&2; exit 2 ;;
  esac
  shift
done
failed=0
table=""
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# check NAME COMMAND...: one line of the table; failures and figures are shown as they come.
check() {
  name=$1
  shift
  begin=$(date +%s)
  timeout 240 "$@" >"$out" 2>&1
  code=$?
  grep -E '^FAIL|rror:|CHECK' "$out" | head -n 20
  grep -E 'ids equal|choices equal|relative error|as alone|points,' "$out" | grep -v '^FAIL' | head -n 30
  [ "$code" = 0 ] || failed=1
  table="$table
$name: $(tail -n 1 "$out") [exit $code, $(($(date +%s) - begin)) s]"
}

if [ "$kernels" = 1 ] && [ -x "$bin/cuda_kernel_check" ]; then check "kernels" "$bin/cuda_kernel_check"; fi
if [ -n "$goldens" ]; then
  check "attention goldens" "$bin/golden_check" nsa "$goldens/nsa" --device cuda
  [ -d "$goldens/dense_runs" ] &&
    check "model goldens, dense" "$bin/golden_check" model "$goldens/dense_runs" --device cuda
  check "model goldens, NSA" "$bin/golden_check" model "$goldens/nsa_runs" --device cuda
fi
# A GPU removed from view is one typed line, not a crash.
if CUDA_VISIBLE_DEVICES= "$bin/golden_check" device "$demo" 2>&1 | grep -q CUDA_NO_DEVICE; then
  table="$table
no GPU in view: CUDA_NO_DEVICE"
else
  failed=1
fi
check "demo model beside the CPU" "$bin/golden_check" device "$demo"
clips="$here/tests/e2e/accuracy/data"
if [ -x "$bin/videonsa-decoder" ]; then
  check "demo model, accuracy" "$bin/golden_check" accuracy "$demo" --data "$clips" --device cuda
  check "runtime, mixed questions" "$bin/serve_check" "$demo" --device cuda --clip "$clips/0001a.mp4" --requests 64
fi
if [ "$times" = 1 ]; then
  set -- --attention released_nsa --attention causal_nsa --attention dense --tokens 32768
  if [ "$quick" = 1 ]; then
    set -- "$@" --batch 1 --batch 16 --cached 8192
  else
    set -- "$@" --tokens 65536 --tokens 131072 --batch 1 --batch 16 --batch 64
  fi
  timeout 400 "$bin/gpu_bench" "$config" "$@" 2>&1 | tee "$out"
  grep -q '^decode' "$out" || failed=1
  table="$table
$(cat "$out")"
fi
echo "----$table"
if [ "$failed" = 0 ]; then echo "GPU worker: all passed"; else echo "GPU worker: FAILED"; fi
exit "$failed"
