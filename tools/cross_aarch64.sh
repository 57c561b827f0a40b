#!/bin/sh
# Builds for aarch64 Linux on any other machine, and runs the tests there under qemu.
#
#   tools/cross_aarch64.sh [test]         the tests of the robot's crates
#   tools/cross_aarch64.sh test NAME...   only the tests with these names
#   tools/cross_aarch64.sh cargo ARGS...  cargo with ARGS, for aarch64
#
# Needs Debian and root; see tools/debian.sh for what it downloads, and where to. Results are in
# target/cross (or $CARGO_TARGET_DIR/cross). `loftup` is built without training.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tools/debian.sh"
out=${CARGO_TARGET_DIR:-$root/target}/cross
mkdir -p "$out"

# libstdc++ is for the mock NVIDIA libraries, which tests compile.
debian_sid rustc cargo ca-certificates libstd-rust-dev:arm64 libstdc++6:arm64 \
    gcc-aarch64-linux-gnu g++-aarch64-linux-gnu gcc libc6-dev qemu-user
debian_sysroot arm64

inside() {
    debian_enter "$sid" -b "$root" /src -w "$out" /target \
        env CARGO_TARGET_DIR=/target CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu \
        CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-}" ${QEMU_CPU:+QEMU_CPU="$QEMU_CPU"} \
        sh -eu -c '
cd /src
if [ -z "$CARGO_BUILD_JOBS" ]; then unset CARGO_BUILD_JOBS; fi
. tools/cross_flags.sh
cross_flags arm64
exec "$@"' sh "$@"
}

# The same packages for every command, so that no dependency is built twice with different features; node
# and command are those of tools/package.sh.
robot="--no-default-features -p loftup-node -p loftup"
packages="-p loftup-wire -p loftup-board -p loftup-tensorrt -p loftup-kernels -p loftup-spec -p loftup-onnx -p loftup-bundle -p loftup-import
    -p loftup-runtime -p loftup-tests"
# All tests except the slowest under qemu, and those that need NVIDIA's libraries.
tests="--lib --test document --test fuzz_seeds --test golden --test noise --test properties
    --test sizes --test light --test link --test linux --test receiver --test stdio --test thermal
    --test trigger --test stand_in --test slots --test checkpoint --test vit --test engine_cache
    --test image --test npy --test pca --test panels
    --test fallback --test kernels --test tensorrt_fake --test tract"

case ${1:-test} in
cargo)
    shift
    inside cargo "$@"
    ;;
test)
    [ $# -eq 0 ] || shift
    if [ $# -gt 0 ]; then tests=; fi
    for name in "$@"; do tests="$tests --test $name"; done
    began=$(date +%s)
    # shellcheck disable=SC2086
    inside cargo build --locked --profile dist $robot
    # shellcheck disable=SC2086
    inside cargo test --locked --profile dist --no-run $robot $packages $tests
    echo "built in $(($(date +%s) - began)) s"
    began=$(date +%s)
    # shellcheck disable=SC2086
    inside cargo test --locked --profile dist --no-fail-fast $robot $packages $tests
    # QEMU's default CPU has all extensions. Cortex-A78AE, in Jetson Orin, has those of neoverse-n1 (FEAT_FP16 and
    # FEAT_DotProd); cortex-a72 has none of them.
    if [ $# -eq 0 ]; then
        for QEMU_CPU in neoverse-n1 cortex-a72; do
            # shellcheck disable=SC2086
            inside cargo test --locked --profile dist $robot $packages --lib --test golden -- narrow
        done
        unset QEMU_CPU
    fi
    echo "tested in $(($(date +%s) - began)) s"
    ls -l "$out/aarch64-unknown-linux-gnu/dist/loftup" \
        "$out/aarch64-unknown-linux-gnu/dist/loftup-node"
    ;;
*)
    debian_fail "unknown command '$1'; see the top of $0"
    ;;
esac
