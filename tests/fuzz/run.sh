#!/bin/sh
# Builds the fuzz targets with clang (libFuzzer, AddressSanitizer, UndefinedBehaviorSanitizer) and runs one or all of them from the
# kept corpus. Usage: run.sh TARGET|all SECONDS [JOBS]. Prints one line a target; exits 1 if any found something. Findings and
# new inputs stay in build/fuzz/found and build/fuzz/corpus.
set -u
target=$1
seconds=$2
jobs=${3:-2}
cd "$(dirname "$0")/../.."
command -v clang++ >/dev/null || { echo "needs clang with its run-time library (Debian: clang libclang-rt-14-dev)" >&2; exit 2; }
[ "$target" = all ] && build_target=fuzzers || build_target=$target
cmake --preset fuzz -Wno-dev >build/fuzz-configure.log 2>&1 || { cat build/fuzz-configure.log >&2; exit 2; }
cmake --build build/fuzz -j "$jobs" --target "$build_target" >build/fuzz/build.log 2>&1 || { tail -40 build/fuzz/build.log >&2; exit 2; }
mkdir -p build/fuzz/found
status=0
for program in build/fuzz/tests/*_fuzzer; do
  name=$(basename "$program")
  [ "$target" = all ] || [ "$target" = "$name" ] || continue
  corpus="build/fuzz/corpus/$name"
  mkdir -p "$corpus"
  xargs -d '\n' cp -n -t "$corpus" <"$program.seeds"
  log="build/fuzz/$name.log"
  # Leaks are looked for at the end of each run; a run longer than 20 s or above 2 GiB is a finding as well.
  if UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/found/$name-" "$corpus" >"$log" 2>&1; then
    found="no finding"
  else
    found="FOUND SOMETHING, see $log"
    status=1
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  cover=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
  echo "$name: ${runs:-0} runs in $seconds s, ${cover:-cov: 0}, $found"
done
exit $status
