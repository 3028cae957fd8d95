#!/bin/sh
# Builds the image (CPU; CUDA=ON: the one with a GPU worker) without a daemon (buildah, chroot isolation), starts its programs as the
# image's user and asks them: server, client, decoder and OpenAI front. Checks the user, the health
# check, that nothing of the root file system was written to, and prints the image's size. The CUDA
# image is asked on a machine without a GPU: the CPU worker answers, --device cuda is one typed line,
# and the libraries it loads by name are there.
# Needs root, buildah and a base image. The base may be a folder:
#   debootstrap --variant=minbase bookworm ROOT && BASE_ROOT=ROOT tests/container/run.sh
# CCACHE_DIR=FOLDER lets the compiler in the container use that cache.
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)
cuda=${CUDA:-OFF}
[ "$cuda" = OFF ] && image=videonsa-server || image=videonsa-server-cuda
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
base=${BASE:-debian:12-slim}
if [ -n "${BASE_ROOT:-}" ]; then
  container=$(buildah from scratch)
  mount=$(buildah mount "$container")
  cp -a "$BASE_ROOT/." "$mount/"
  buildah umount "$container" >/dev/null
  buildah commit -q --rm "$container" videonsa-base >/dev/null
  base=localhost/videonsa-base
fi
cache=""
[ -z "${CCACHE_DIR:-}" ] || cache="--volume $CCACHE_DIR:$HOME/.ccache:rw"
# Only Docker's format holds a health check.
# shellcheck disable=SC2086
buildah build --format docker $cache --build-arg BASE="$base" --build-arg JOBS="${JOBS:-2}" --build-arg CUDA="$cuda" --target runtime \
  -t "$image" "$root"
user=$(buildah inspect --type image --format '{{.Docker.Config.User}}' "$image")
[ "$user" = 65532:65532 ] || { echo "the image's user is $user" >&2; exit 1; }
buildah inspect --type image --format '{{.Docker.Config.Healthcheck}}' "$image" | grep -q 'videonsa health' \
  || { echo "the image has no health check" >&2; exit 1; }

container=$(buildah from "$image")
mount=$(buildah mount "$container")
work=$(mktemp -d)
chmod 755 "$work"
pids=""
# shellcheck disable=SC2086
trap 'for pid in $pids; do kill -TERM "-$pid" 2>/dev/null || true; done; [ -z "$pids" ] || sleep 2; buildah umount "$container" >/dev/null; buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
echo "image size: $(du -sxm --exclude="$mount/proc" --exclude="$mount/sys" "$mount" | cut -f1) MB"
mkdir -m 777 "$work/state" # stands for the volume
cp "${CLIP:-$(ls "$root"/deploy/demo/clips/*.mp4 | head -1)}" "$work/clip.mp4"
chmod 644 "$work/clip.mp4"
touch "$work/begin"

# Runs a program of the image as its user; what it may write is the volume. In a process group of its own, so that it can be
# ended with all that buildah starts around it.
inside() { buildah run --user 65532:65532 -v "$work/state:/var/lib/videonsa:rw" -v "$work:/in:ro" "$container" -- "$@"; }
start() { setsid buildah run --user 65532:65532 -v "$work/state:/var/lib/videonsa:rw" -v "$work:/in:ro" "$container" -- "$@" & }
# Waits until the file $1 of process $2 says that it is ready.
await() {
  for _ in $(seq 600); do
    if grep -q 'ready on' "$1"; then return 0; fi
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work"/*.out "$work"/*.log >&2
  exit 1
}

[ "$(inside /usr/bin/id -u)" = 65532 ]
if [ "$cuda" = ON ]; then
  for library in libcublasLt.so.13 libnccl.so.2; do
    if inside /usr/bin/ldd "/usr/lib/videonsa/$library" | grep 'not found'; then exit 1; fi
  done
  if [ ! -e /dev/nvidiactl ]; then
    code=0
    inside /usr/bin/videonsa-server --device cuda --listen 127.0.0.1:18090 --clip-dir /var/lib/videonsa/clips >"$work/cuda.out" 2>&1 || code=$?
    grep -m1 -oE 'CUDA_NO_(DRIVER|DEVICE)' "$work/cuda.out" || { cat "$work/cuda.out" >&2; exit 1; }
    [ "$code" != 0 ] || { echo "--device cuda without a GPU ended with 0" >&2; exit 1; }
  fi
fi
start /usr/bin/videonsa-server --listen 127.0.0.1:18090 --metrics-listen 127.0.0.1:19090 --admin-listen 127.0.0.1:18091 \
  --clip-dir /var/lib/videonsa/clips >"$work/server.out" 2>"$work/server.log"
pids=$!
await "$work/server.out" $!
inside /usr/bin/videonsa health --server 127.0.0.1:18090
inside /usr/bin/videonsa ask /in/clip.mp4 -q "What colour is the object?" --max-tokens 16 --server 127.0.0.1:18090
start /usr/bin/videonsa-openai --listen 127.0.0.1:18080 --server 127.0.0.1:18090 >"$work/front.out" 2>"$work/front.log"
pids="$pids $!"
await "$work/front.out" $!
python3 - <<'PY'
import urllib.request
assert urllib.request.urlopen("http://127.0.0.1:18080/healthz", timeout=10).read() == b"ok\n"
assert b"videonsa_requests_total" in urllib.request.urlopen("http://127.0.0.1:19090/metrics", timeout=10).read()
PY
inside /usr/bin/videonsa drain --server 127.0.0.1:18091 --timeout 5s
written=$(find "$mount" -xdev -newer "$work/begin" -type f -not -path "$mount/tmp/*" -not -path "$mount/proc/*" -not -path "$mount/run/*" \
  -not -path "$mount/etc/hosts" -not -path "$mount/etc/resolv.conf")
[ -z "$written" ] || { echo "written to outside the volume: $written" >&2; exit 1; }
echo "container: built, healthy, answered through gRPC and the front, wrote nothing but its volume"
