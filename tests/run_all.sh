#!/bin/sh
# Runs every registered test of a build folder; the last line is "N passed, N failed".
# Usage: tests/run_all.sh BUILD_DIR [JOBS]
set -u
build=$1
jobs=${2:-2}
log="$build/test.log"
junit="$build/test.xml"
rm -f "$junit"
ctest --test-dir "$build" -j "$jobs" --output-on-failure --output-junit test.xml 2>&1 | tee "$log"
python3 - "$junit" <<'PY'
import sys, xml.etree.ElementTree as tree
try:
    cases = tree.parse(sys.argv[1]).getroot().findall("testcase")
except (OSError, tree.ParseError) as error:
    print(f"no test ran: {error}")
    print("0 passed, 1 failed")
    sys.exit(1)
bad = [c.get("name") for c in cases if c.get("status") != "run"]
for name in bad:
    print("FAILED", name)
passed = len(cases) - len(bad)
if not cases:
    bad = ["no test found"]
print(f"{passed} passed, {len(bad)} failed")
sys.exit(1 if bad else 0)
PY
