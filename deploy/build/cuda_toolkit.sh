#!/bin/sh
# Installs the CUDA toolkit of cuda_packages.txt from PyPI into a folder, without root.
# Usage: deploy/build/cuda_toolkit.sh [FOLDER]   (default build/cuda-toolkit)
#        deploy/build/cuda_toolkit.sh --if-missing [FOLDER]
#        deploy/build/cuda_toolkit.sh --for-image [FOLDER]
# With --if-missing a machine that has a toolkit is left alone, and a download that fails is said
# plainly but ends with 0: the build then has no CUDA worker. With --for-image the libraries that only
# a running server needs (cuda_image_packages.txt) come too, into FOLDER/image_lib beside cuBLASLt.
set -u
here=$(cd "$(dirname "$0")" && pwd)
optional=0
image=0
case ${1:-} in
  --if-missing) optional=1; shift ;;
  --for-image) image=1; shift ;;
esac
folder=${1:-$(cd "$here/../.." && pwd)/build/cuda-toolkit}
wanted="$here/cuda_packages.txt"

if [ -f "$folder/packages.txt" ] && cmp -s "$wanted" "$folder/packages.txt" && { [ "$image" = 0 ] || [ -d "$folder/image_lib" ]; }; then
  [ "$optional" = 1 ] || echo "CUDA toolkit: $folder is complete"
  exit 0
fi
if [ "$optional" = 1 ]; then
  for root in /usr/local/cuda /opt/cuda; do
    if [ -x "$root/bin/nvcc" ] && [ -f "$root/include/cublasLt.h" ]; then exit 0; fi
  done
fi

fail() {
  echo "CUDA toolkit: $1"
  if [ "$optional" = 1 ]; then
    echo "CUDA toolkit: THE GPU CODE IS NOT COMPILED in this build"
    exit 0
  fi
  exit 1
}

rm -rf "$folder"
mkdir -p "$folder" || fail "cannot create $folder"
python3 -m venv "$folder/venv" >"$folder/log.txt" 2>&1 ||
  fail "python3 -m venv failed (Debian: apt-get install python3-venv), see $folder/log.txt"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --timeout 20 --retries 2 \
  -r "$wanted" >>"$folder/log.txt" 2>&1 ||
  fail "pip could not download the packages of $wanted: $(grep -v WARNING "$folder/log.txt" | tail -n 1)"
root=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia/cu13)
for name in bin lib include nvvm; do
  ln -s "${root#"$folder"/}/$name" "$folder/$name" || fail "no $root/$name in the packages"
done
[ -x "$folder/bin/nvcc" ] || fail "no compiler in $folder/bin"
if [ "$image" = 1 ]; then
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --timeout 20 --retries 2 \
    -r "$here/cuda_image_packages.txt" >>"$folder/log.txt" 2>&1 || fail "pip could not download the packages of cuda_image_packages.txt"
  mkdir "$folder/image_lib"
  ln -s "$root/lib/libcublasLt.so.13" "$(dirname "$root")"/nccl/lib/libnccl.so.2 "$folder/image_lib/"
fi
cp "$wanted" "$folder/packages.txt"
echo "CUDA toolkit: $("$folder/bin/nvcc" --version | grep -o 'release.*') in $folder"
