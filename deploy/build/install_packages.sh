#!/bin/sh
# Installs the Debian packages of packages.txt that are missing, and those of further lists named as arguments (test_packages.txt).
# Needs root only if any is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
packages=$(cd "$here" && cat packages.txt "$@" | grep -v '^#')
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "missing Debian packages:$missing" >&2
  echo "install them as root: apt-get install$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing
