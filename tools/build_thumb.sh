#!/bin/sh
# Builds loftup-wire, loftup-board and the controller example for a bare-metal
# Cortex-M4F, which verifies that they need neither std nor alloc. If qemu-system-arm
# is installed, also runs the example in an emulator: its output must be the same as
# on this computer.
#
#   tools/build_thumb.sh [TARGET]        default: thumbv7em-none-eabihf
#
# Uses the first of these that is available:
#   1. the target's core library, installed with rustup;
#   2. the source of core (component rust-src);
#   3. Debian unstable's compiler and its source, as root: tools/debian.sh.
# Only the third downloads anything other than crates.
set -eu

target=${1:-thumbv7em-none-eabihf}
root=$(cd "$(dirname "$0")/.." && pwd)
out=${CARGO_TARGET_DIR:-$root/target}/thumb

# Uses $target and $CARGO_TARGET_DIR.
build() { # directory, extra arguments of cargo
    cd "$1"
    shift
    example=firmware/board/examples/mcu_receiver
    # The example is linked as well, so that missing symbols are detected.
    for what in "-p loftup-wire --lib" "-p loftup-board --lib" \
        "-p loftup-board --example mcu_receiver"; do
        # shellcheck disable=SC2086
        cargo build --locked --target "$target" $what "$@" --config \
            "target.$target.rustflags=['-Clink-arg=-Tlink.x', '-Clink-arg=-L$PWD/$example']"
    done
    if ! command -v qemu-system-arm >/dev/null; then
        echo "the example was not run: qemu-system-arm is not installed"
        return
    fi
    cargo run --quiet --locked -p loftup-board --example mcu_receiver >"$CARGO_TARGET_DIR/here.txt"
    qemu-system-arm -machine mps2-an386 -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native \
        -kernel "$CARGO_TARGET_DIR/$target/debug/examples/mcu_receiver" \
        >"$CARGO_TARGET_DIR/there.txt"
    cmp "$CARGO_TARGET_DIR/here.txt" "$CARGO_TARGET_DIR/there.txt"
    echo "the example prints the same $(wc -l <"$CARGO_TARGET_DIR/there.txt") lines on an emulated Cortex-M4, with the memory of $example/memory.x"
}

mkdir -p "$out"
sysroot=$(rustc --print sysroot)
if [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
    echo "core of $target comes with $(rustc --version)"
    export CARGO_TARGET_DIR="$out"
    build "$root"
elif [ -d "$sysroot/lib/rustlib/src/rust/library/core" ]; then
    echo "core of $target is built from the source of $(rustc --version)"
    export CARGO_TARGET_DIR="$out" RUSTC_BOOTSTRAP=1
    build "$root" -Zbuild-std=core
elif [ "$(id -u)" != 0 ]; then
    echo "$0: neither the target $target nor rust-src is installed: run" \
        "'rustup target add $target', or this script as root" >&2
    exit 1
else
    . "$root/tools/debian.sh"
    debian_sid rustc rust-src cargo lld gcc libc6-dev ca-certificates qemu-system-arm
    echo "core of $target is built from the source of $(chroot "$sid" rustc --version)"
    linker=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_LINKER
    debian_enter "$sid" -b "$root" /src -w "$out" /target \
        env CARGO_TARGET_DIR=/target RUSTC_BOOTSTRAP=1 "$linker=ld.lld" target="$target" \
        sh -eu -c "$(sed -n '/^build() {/,/^}/p' "$0")
build /src -Zbuild-std=core"
fi
ls -l "$out/$target/debug/"*.rlib "$out/$target/debug/examples/mcu_receiver"
