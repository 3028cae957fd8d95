#!/bin/sh
# Lays the four programs and the bundled model out as they are installed, and lists the Debian
# packages whose libraries they load. With a CUDA worker it adds the libraries that are loaded by name.
# Usage: stage_install.sh BUILD_DIR STAGE_DIR [CUDA_LIB_DIR]
set -eu
build=$1
stage=$2
cuda=${3:-}
mkdir -p "$stage/usr/bin" "$stage/usr/share/videonsa/demo_model"
for program in videonsa-server videonsa videonsa-decoder videonsa-openai; do
  cp "$build/bin/$program" "$stage/usr/bin/"
done
cp -r deploy/demo_model/weights "$stage/usr/share/videonsa/demo_model/weights"
if [ -n "$cuda" ]; then
  mkdir -p "$stage/usr/lib/videonsa"
  cp -L "$cuda"/*.so.* "$stage/usr/lib/videonsa/"
fi
for program in "$stage"/usr/bin/*; do
  ldd "$program" > "$stage/ldd"
  if grep 'not found' "$stage/ldd" >&2; then exit 1; fi
  awk '$3 ~ /^\// {print $3}' "$stage/ldd"
done | sort -u > "$stage/libraries"
while read -r library; do
  # dpkg knows libraries by the path of the package, which may lack the /usr prefix.
  dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "$(readlink -f "$library")" 2>/dev/null \
    || dpkg-query -S "${library#/usr}"
done < "$stage/libraries" > "$stage/owners"
cut -d: -f1 "$stage/owners" | sort -u > "$stage/packages.txt"
[ -s "$stage/packages.txt" ]
