#!/bin/sh
# Lays the four programs and the bundled model out as they are installed, and lists the Debian
# packages whose libraries they load.
# Usage: stage_install.sh BUILD_DIR STAGE_DIR
set -eu
build=$1
stage=$2
mkdir -p "$stage/usr/bin" "$stage/usr/share/videonsa"
for program in videonsa-server videonsa videonsa-decoder videonsa-openai; do
  cp "$build/bin/$program" "$stage/usr/bin/"
done
cp -r deploy/demo_model/weights "$stage/usr/share/videonsa/model"
for program in "$stage"/usr/bin/*; do
  ldd "$program" | awk '$3 ~ /^\// {print $3}'
done | sort -u | while read -r library; do
  # dpkg knows libraries by the path of the package, which may lack the /usr prefix.
  dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "$(readlink -f "$library")" 2>/dev/null \
    || dpkg-query -S "${library#/usr}"
done | cut -d: -f1 | sort -u > "$stage/packages.txt"
