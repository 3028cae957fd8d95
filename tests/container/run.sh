#!/bin/sh
# Builds the CPU image without a daemon (buildah, chroot isolation), starts it as the image's user
# with a read-only root and asks it a question. Prints the image's size.
# Needs root, buildah and a base image; BASE=scratch-like images may be made with debootstrap:
#   debootstrap --variant=minbase bookworm ROOT && BASE_ROOT=ROOT tests/container/run.sh
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
base=${BASE:-debian:12-slim}
if [ -n "${BASE_ROOT:-}" ]; then
  container=$(buildah from scratch)
  tar -C "$BASE_ROOT" -c . | buildah add "$container" - / >/dev/null 2>&1 || {
    mount=$(buildah mount "$container"); cp -a "$BASE_ROOT/." "$mount/"; buildah umount "$container" >/dev/null; }
  buildah commit -q "$container" videonsa-base >/dev/null
  buildah rm "$container" >/dev/null
  base=localhost/videonsa-base
fi
buildah build --build-arg BASE="$base" --target runtime -t videonsa-server "$root"
container=$(buildah from videonsa-server)
mount=$(buildah mount "$container")
echo "image size: $(du -sm --exclude=proc --exclude=sys "$mount" | cut -f1) MB"
work=$(mktemp -d)
trap 'kill $pid 2>/dev/null || true; buildah umount "$container" >/dev/null; buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
# The image's own entry point and user; its root file system is not written to but for the volume.
buildah run --user 65532:65532 "$container" -- /usr/bin/videonsa-server --listen 127.0.0.1:18090 \
  --metrics-listen 127.0.0.1:19090 --admin-listen 127.0.0.1:0 --clip-dir /var/lib/videonsa/clips >"$work/out" 2>"$work/log" &
pid=$!
for _ in $(seq 300); do
  grep -q 'ready on' "$work/out" && break
  kill -0 $pid 2>/dev/null || { cat "$work/out" "$work/log" >&2; exit 1; }
  sleep 0.1
done
buildah run --user 65532:65532 "$container" -- /usr/bin/videonsa health --server 127.0.0.1:18090
clip=${CLIP:-$(ls "$root"/deploy/demo/clips/*.mp4 | head -1)}
cp "$clip" "$mount/var/lib/videonsa/question.mp4"
buildah run --user 65532:65532 "$container" -- /usr/bin/videonsa ask /var/lib/videonsa/question.mp4 \
  -q "What colour is the object?" --max-tokens 16 --server 127.0.0.1:18090
echo "container: built, healthy, answered"
