#!/bin/sh
# Installs, upgrades, removes and purges a package of tools/package.sh in a clean system, and runs its
# programs.
#
#   tools/try_package.sh amd64|arm64 [SUITE]        default: bullseye, Debian 11
#
# arm64 programs run in qemu. systemd is not running.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tools/debian.sh"
out=${CARGO_TARGET_DIR:-$root/target}/cross
arch=${1:-}
suite=${2:-bullseye}
case $arch in
amd64 | arm64) ;;
*) debian_fail "no architecture: use amd64 or arm64" ;;
esac
package=$(ls -t "$out"/loftup_*_"$arch".deb 2>/dev/null | head -n 1)
[ -n "$package" ] || debian_fail "no package for $arch in $out: build it with tools/package.sh $arch"

debian_clean "$suite" "$arch"
trap 'rm -rf "$work"' EXIT
cp "$package" "$work/tmp/loftup.deb"
echo "$(basename "$package") in a clean $suite of $arch"
debian_enter "$work" -b "$root/tools/package" /package bash -eu /package/try.sh "$arch"
