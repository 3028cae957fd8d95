#!/bin/sh
# Makes build/openai-venv with the `openai` package of requirements.txt, if it is not there; prints its python.
# With --if-missing a download that fails is said plainly but ends with 0: the test of the package is then left out.
set -u
here=$(cd "$(dirname "$0")" && pwd)
venv="$here/../../../build/openai-venv"
mkdir -p "$(dirname "$venv")"
venv=$(cd "$(dirname "$venv")" && pwd)/openai-venv
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
  rm -rf "$venv"
  if ! { python3 -m venv "$venv" &&
    "$venv/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 2 -r "$here/requirements.txt"; } >"$venv.log" 2>&1; then
    echo "openai package: pip could not download it: $(tail -n 1 "$venv.log")" >&2
    rm -rf "$venv"
    if [ "${1:-}" = --if-missing ]; then
      echo "openai package: THE FRONT IS NOT TESTED WITH IT in this build" >&2
      exit 0
    fi
    exit 1
  fi
  cp "$here/requirements.txt" "$venv/requirements.txt"
fi
echo "$venv/bin/python"
