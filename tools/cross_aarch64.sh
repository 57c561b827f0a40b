#!/bin/sh
# Builds for aarch64 Linux on any other machine, and runs the tests there under qemu.
#
#   tools/cross_aarch64.sh [test]         the tests of what runs on a robot
#   tools/cross_aarch64.sh test NAME...   the tests of these packages of the workspace
#   tools/cross_aarch64.sh cargo ARGS...  cargo with ARGS, for aarch64
#
# Needs Debian and root; tools/debian.sh says what it downloads and where it is kept. What is built
# lies in target/cross (or $CARGO_TARGET_DIR/cross). `loftup` is built without training.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tools/debian.sh"
out=${CARGO_TARGET_DIR:-$root/target}/cross
mkdir -p "$out"

# libstdc++ is for the stand-ins of NVIDIA's libraries, which tests compile.
debian_sid rustc cargo ca-certificates libstd-rust-dev:arm64 libstdc++6:arm64 \
    gcc-aarch64-linux-gnu g++-aarch64-linux-gnu gcc libc6-dev qemu-user
debian_sysroot arm64

inside() {
    debian_enter "$sid" -b "$root" /src -w "$out" /target \
        env CARGO_TARGET_DIR=/target CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-}" \
        sh -eu -c '
cd /src
if [ -z "$CARGO_BUILD_JOBS" ]; then unset CARGO_BUILD_JOBS; fi
. tools/cross_flags.sh
cross_flags arm64
exec "$@"' sh "$@"
}

case ${1:-test} in
cargo)
    shift
    inside cargo "$@" --locked --target aarch64-unknown-linux-gnu
    ;;
test)
    [ $# -eq 0 ] || shift
    [ $# -gt 0 ] || set -- loftup-wire loftup-board loftup-tensorrt loftup-kernels loftup-models \
        loftup-runtime loftup-tests
    packages=
    for package in "$@"; do packages="$packages -p $package"; done
    began=$(date +%s)
    # The same selection and profile as tools/package.sh, so that nothing is built twice.
    inside cargo build --locked --target aarch64-unknown-linux-gnu --profile dist \
        --no-default-features -p loftup-node -p loftup-cli
    # shellcheck disable=SC2086
    inside cargo test --locked --target aarch64-unknown-linux-gnu --profile dist --no-run \
        $packages
    echo "built in $(($(date +%s) - began)) s"
    began=$(date +%s)
    # shellcheck disable=SC2086
    inside cargo test --locked --target aarch64-unknown-linux-gnu --profile dist \
        --no-fail-fast $packages
    echo "tested in $(($(date +%s) - began)) s"
    ls -l "$out/aarch64-unknown-linux-gnu/dist/loftup" \
        "$out/aarch64-unknown-linux-gnu/dist/loftup-node"
    ;;
*)
    debian_fail "what is '$1'? See the top of $0"
    ;;
esac
