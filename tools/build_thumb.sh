#!/bin/sh
# Builds loftup-wire, loftup-board and the controller example for a Cortex-M4F
# without an operating system: proof that they need neither std nor alloc.
#
#   tools/build_thumb.sh [TARGET]        default: thumbv7em-none-eabihf
#
# It takes the first way that is there:
#   1. the target's own core library, where rustup has installed it;
#   2. the source of core beside the compiler (component rust-src), built with it;
#   3. Debian's unstable compiler and its source, with root: tools/debian.sh.
# The third way is the only one that downloads anything but crates.
set -eu

target=${1:-thumbv7em-none-eabihf}
root=$(cd "$(dirname "$0")/.." && pwd)
out=${CARGO_TARGET_DIR:-$root/target}

build() { # directory, extra arguments of cargo
    cd "$1"
    shift
    # The example is linked too, so that nothing is left that core lacks.
    for what in "-p loftup-wire --lib" "-p loftup-board --lib" \
        "-p loftup-board --example mcu_receiver"; do
        # shellcheck disable=SC2086
        cargo build --locked --target "$target" $what "$@"
    done
}

sysroot=$(rustc --print sysroot)
if [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
    echo "core of $target comes with $(rustc --version)"
    build "$root"
    exit
fi
if [ -d "$sysroot/lib/rustlib/src/rust/library/core" ]; then
    echo "core of $target is built from the source of $(rustc --version)"
    export RUSTC_BOOTSTRAP=1
    build "$root" -Zbuild-std=core
    exit
fi

if [ "$(id -u)" != 0 ]; then
    echo "$0: neither the target $target nor rust-src is installed: run" \
        "'rustup target add $target', or this script as root" >&2
    exit 1
fi
. "$root/tools/debian.sh"
debian_sid rustc rust-src cargo lld ca-certificates
mkdir -p "$out"
echo "core of $target is built from the source of $(chroot "$sid" rustc --version)"
linker=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_LINKER
debian_enter "$sid" -b "$root" /src -w "$out" /target \
    env CARGO_TARGET_DIR=/target/thumb RUSTC_BOOTSTRAP=1 "$linker=ld.lld" target="$target" \
    sh -eu -c "$(sed -n '/^build() {/,/^}/p' "$0")
build /src -Zbuild-std=core"
ls -l "$out/thumb/$target/debug/"*.rlib "$out/thumb/$target/debug/examples/mcu_receiver"
