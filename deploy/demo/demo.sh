#!/bin/sh
# Starts a server on a free port, asks it about clips, prints answers and reports, stops it.
# Usage: demo.sh BUILD_DIR; CLIP and QUESTION in the environment replace the bundled questions.
set -eu
build=$1
bin="$build/bin"
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
server_pid=""
cleanup() {
  [ -n "$server_pid" ] && kill "$server_pid" 2>/dev/null && wait "$server_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM

"$bin/videonsa-server" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
  --clip-dir "$work/clips" ${MODEL:+--model "$MODEL"} >"$work/server.out" 2>"$work/server.log" &
server_pid=$!
for _ in $(seq 300); do
  address=$(sed -n 's/.*ready on \([^ ]*\).*/\1/p' "$work/server.out" | head -1)
  [ -n "$address" ] && break
  kill -0 "$server_pid" 2>/dev/null || { cat "$work/server.out" "$work/server.log" >&2; exit 1; }
  sleep 0.1
done
[ -n "$address" ] || { echo "the server did not become ready in 30 s" >&2; cat "$work/server.log" >&2; exit 1; }
cat "$work/server.out"

# ask CLIP QUESTION [FLAGS...]
ask() {
  clip=$1
  question=$2
  shift 2
  echo
  echo "\$ videonsa ask $(basename "$clip") -q \"$question\" $*"
  "$bin/videonsa" ask "$clip" -q "$question" --server "$address" --evidence "$@" </dev/null
}

if [ -n "${CLIP:-}" ]; then
  ask "$CLIP" "${QUESTION:-What happens in this clip?}"
  exit 0
fi
ask "$root/deploy/demo/clips/diamond.mp4" "Which color does the diamond have?"
ask "$root/deploy/demo/clips/sign.mp4" "What can you read on the sign?"
ask "$root/deploy/demo/clips/triangle.mp4" "In which direction does the blue triangle move?"
echo
echo "The right answers to the three are green, LAKE and in a circle."

echo
echo "Rendering a clip of ten minutes in which a sign is shown for a few seconds ..."
if python=$("$root/deploy/demo_model/venv.sh") && (cd "$root" && "$python" -m deploy.demo_model.world long "$work/long" --seed "${SEED:-3}" >/dev/null); then
  truth() { "$python" -c "import json; i = json.load(open('$work/long/questions.json'))['items'][0]; print($1)"; }
  ask "$work/long/needle000.mp4" "$(truth 'i["turns"][0]["q"]')" --fps 1 --min-pixels 28224 --max-pixels 50176
  echo
  truth '"The right answer is {}; the sign is shown from second {:.0f} to {:.0f}. Blocks of the first seconds are always among the evidence.".format(i["turns"][0]["a"], *i["evidence"])'
else
  echo "It cannot be rendered here (no PyTorch); the other questions did not need it."
fi

ask "$root/tests/data/e2e/stream-of-water.mp4" "What color is the object?"
cat <<'TEXT'

The last clip is natural video, of which the bundled model knows nothing: it was trained on rendered shapes
only. For natural video give the server real weights:
  make serve MODEL=/path/to/a/Qwen2.5-VL/or/VideoNSA/folder
TEXT
