#!/bin/sh
# Builds loftup-wire, loftup-board and the controller example for a Cortex-M4F
# without an operating system: proof that they need neither std nor alloc.
#
#   tools/build_thumb.sh [TARGET]        default: thumbv7em-none-eabihf
#
# It takes the first way that is there:
#   1. the target's own core library, where rustup has installed it;
#   2. the source of core beside the compiler (component rust-src), built with it;
#   3. Debian's unstable compiler and its source, in a directory that is made
#      once with debootstrap (needs root and some 2 GB) and kept in
#      $LOFTUP_THUMB_CACHE, default ~/.cache/loftup/debian-sid.
# The third way is the only one that downloads anything but crates.
set -eu

target=${1:-thumbv7em-none-eabihf}
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${LOFTUP_THUMB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loftup/debian-sid}
out=${CARGO_TARGET_DIR:-$root/target}

build() { # directory, extra arguments of cargo
    cd "$1"
    shift
    # The example is linked too, so that nothing is left that core lacks.
    for what in "-p loftup-wire --lib" "-p loftup-board --lib" \
        "-p loftup-board --example mcu_receiver"; do
        # shellcheck disable=SC2086
        cargo build --target "$target" $what "$@"
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

if [ ! -x "$cache/usr/bin/rustc" ] || [ ! -x "$cache/usr/bin/ld.lld" ] ||
    [ ! -d "$cache/usr/lib/rustlib/src/rust/library/core" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "$0: neither the target $target nor rust-src is installed: run" \
            "'rustup target add $target', or this script as root" >&2
        exit 1
    fi
    if ! command -v debootstrap >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends debootstrap
    fi
    echo "making $cache"
    rm -rf "$cache"
    mkdir -p "$(dirname "$cache")"
    debootstrap --variant=minbase sid "$cache" >"$cache.log" 2>&1 ||
        { tail -n 5 "$cache.log" >&2; exit 1; }
    cp /etc/resolv.conf "$cache/etc/resolv.conf"
    # A mirror may be some days behind, which is no fault here.
    echo 'Acquire::Check-Valid-Until "false";' >"$cache/etc/apt/apt.conf.d/99stale"
    chroot "$cache" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive chroot "$cache" apt-get install -y -qq \
        --no-install-recommends rustc rust-src cargo lld ca-certificates >>"$cache.log" 2>&1 ||
        { tail -n 5 "$cache.log" >&2; exit 1; }
fi
cp /etc/resolv.conf "$cache/etc/resolv.conf"
# The certificates that this machine trusts.
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$cache/etc/ssl/certs/ca-certificates.crt"
fi

# A workspace of the two crates alone, so that nothing of the others is resolved.
rm -rf "$cache/work"
mkdir -p "$cache/work/firmware"
cp -r "$root/firmware/wire" "$root/firmware/board" "$cache/work/firmware/"
cp "$root/Cargo.lock" "$cache/work/"
sed -e '/^default-members/d' \
    -e 's|^members = .*|members = ["firmware/wire", "firmware/board"]|' \
    "$root/Cargo.toml" >"$cache/work/Cargo.toml"
grep -q '^members = \["firmware/wire", "firmware/board"\]' "$cache/work/Cargo.toml" ||
    { echo "$0: no single line 'members = [...]' in Cargo.toml" >&2; exit 1; }

echo "core of $target is built from the source of $(chroot "$cache" rustc --version)"
cat >"$cache/work/build.sh" <<EOF
set -eu
export RUSTC_BOOTSTRAP=1 HOME=/root CARGO_HOME=/root/.cargo CARGO_TARGET_DIR=/root/target
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
export CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_LINKER=ld.lld
target=$target
$(sed -n '/^build() {/,/^}/p' "$root/tools/build_thumb.sh")
build /work -Zbuild-std=core
EOF
chroot "$cache" env -i PATH=/usr/bin:/bin sh /work/build.sh
mkdir -p "$out/$target/debug"
for file in libloftup_wire.rlib libloftup_board.rlib examples/mcu_receiver; do
    cp "$cache/root/target/$target/debug/$file" "$out/$target/debug/"
done
ls -l "$out/$target/debug"
