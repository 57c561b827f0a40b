#!/bin/sh
# Builds Debian packages and wheels.
#
#   tools/package.sh [programs|library|wheel]... [amd64|arm64]...        default: all of them
#
#   programs   the package loftup: `loftup` and `loftup-node`
#   library    libloftup1 and libloftup-dev, for C and C++
#   wheel      the package for Python
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
parts= architectures=
for word in "$@"; do
    case $word in
    programs | library | wheel) parts="$parts $word" ;;
    amd64 | arm64) architectures="$architectures $word" ;;
    *) debian_fail "unknown '$word': use programs, library, wheel, amd64 and arm64" ;;
    esac
done
parts=${parts:-programs library wheel}
architectures=${architectures:-amd64 arm64}

debian_sid rustc cargo ca-certificates gcc libc6-dev qemu-user cmake make python3-maturin
for arch in $architectures; do
    if [ "$arch" = arm64 ]; then
        debian_sid libstd-rust-dev:arm64 libstdc++6:arm64 gcc-aarch64-linux-gnu
    fi
    debian_sysroot "$arch"
done
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
date=$(git -C "$root" log -1 --format=%cD 2>/dev/null || date -R)

# shellcheck disable=SC2086
debian_enter "$sid" -b "$root" /src -w "$out" /target \
    env CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-}" TRAINING="${LOFTUP_TRAINING:-yes}" PARTS="$parts" \
    VERSION="$version" DATE="$date" sh -eu /src/tools/package/build.sh $architectures
ls -l "$out"/*.deb "$out"/*.whl 2>/dev/null || true
