#!/bin/sh
# Builds Debian packages of `loftup` and `loftup-node`.
#
#   tools/package.sh [amd64|arm64]...        default: both
#
# They are written to target/cross (or $CARGO_TARGET_DIR/cross), and run on Debian 11, Ubuntu 20.04
# (JetPack 5) and later (glibc 2.31). Needs Debian on amd64 and root; see tools/debian.sh for what it
# downloads, and where to. The arm64 package does not contain `loftup train` and `loftup demo`;
# neither does the amd64 package with LOFTUP_TRAINING=no.
#
# cargo-deb is not used: it builds one package per crate, links against the libraries of the machine,
# and would be another program to build.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tools/debian.sh"
out=${CARGO_TARGET_DIR:-$root/target}/cross
mkdir -p "$out"
[ $# -gt 0 ] || set -- amd64 arm64
debian_sid rustc cargo ca-certificates gcc libc6-dev qemu-user
for arch in "$@"; do
    case $arch in
    amd64) ;;
    arm64) debian_sid libstd-rust-dev:arm64 libstdc++6:arm64 gcc-aarch64-linux-gnu ;;
    *) debian_fail "no package for '$arch': use amd64 or arm64" ;;
    esac
    debian_sysroot "$arch"
done
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
date=$(git -C "$root" log -1 --format=%cD 2>/dev/null || date -R)

debian_enter "$sid" -b "$root" /src -w "$out" /target \
    env CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-}" TRAINING="${LOFTUP_TRAINING:-yes}" \
    VERSION="$version" DATE="$date" sh -eu /src/tools/package/build.sh "$@"
ls -l "$out"/*.deb
