#!/bin/sh
# Runs every lint; formatting only where clang-format is installed.
set -u
cd "$(dirname "$0")/../.."
status=0
for check in layers sizes words headers; do
  python3 tests/lint/$check.py . || status=1
done
if command -v clang-format >/dev/null; then
  git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | grep -v '^tests/data/' | xargs clang-format --dry-run -Werror 2>&1 | grep -c 'error:' | sed 's/$/ formatting differences/'
fi
exit $status
