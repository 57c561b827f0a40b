#!/bin/sh
# Installs libloftup1, libloftup-dev and the wheel of tools/package.sh in a clean system, compiles the examples with
# pkg-config and CMake, runs them and Python, and compares the outputs with those of `loftup run` on this machine.
#
#   tools/try_library.sh amd64|arm64 [SUITE]        default: trixie, Debian 13
#
# Without the wheel in a suite whose Python or NumPy is too old, such as bullseye, the oldest for the library. arm64 programs run in qemu. Needs Python 3, and `loftup` and `loftup-scenes` for this machine in $LOFTUP_BIN, by
# default target/debug: cargo build --workspace --bins
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tools/debian.sh"
target=${CARGO_TARGET_DIR:-$root/target}
out=$target/cross
bin=${LOFTUP_BIN:-$target/debug}
arch=${1:-}
suite=${2:-trixie}
case $arch in
amd64 | arm64) ;;
*) debian_fail "no architecture: use amd64 or arm64" ;;
esac
for program in loftup loftup-scenes; do
    [ -x "$bin/$program" ] || debian_fail "no $bin/$program: cargo build --workspace --bins, or set LOFTUP_BIN"
done
for package in "$out"/libloftup[0-9]*_"$arch".deb "$out"/libloftup-dev_*_"$arch".deb; do
    [ -e "$package" ] || debian_fail "no $package: build it with tools/package.sh library $arch"
done
case $arch in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
esac

debian_clean "$suite" "$arch"
trap 'rm -rf "$work"' EXIT
cp "$out"/libloftup[0-9]*_"$arch".deb "$out"/libloftup-dev_*_"$arch".deb "$work/tmp/"
cp "$out"/loftup-*_"$cpu".whl "$work/tmp/" 2>/dev/null || echo "without the wheel: build it with tools/package.sh wheel $arch"

# An image, a bundle with a class head, and the outputs to be compared.
expected=$work/tmp/expected
mkdir "$expected"
python3 "$root/tools/package/compare.py" image "$expected/photo.ppm"
"$bin/loftup-scenes" --out "$expected/scenes" --train 4 --val 2 >/dev/null
"$bin/loftup" convert --builtin=scenes --out "$expected/plain.loftup" >/dev/null
"$bin/loftup" head classes "$expected/plain.loftup" --data "$expected/scenes" --epochs 1 \
    --out "$expected/robot.loftup" >/dev/null
rm -r "$expected/scenes"
run() { "$bin/loftup" run "$expected/robot.loftup" --backend tract --image "$expected/photo.ppm" "$@" >/dev/null; }
run --size 61x47 --out "$expected/features.npy"
run --size 224x224 --head classes --out "$expected/classes.npy"

echo "in a clean $suite of $arch"
debian_enter "$work" -b "$root/tools/package" /package bash -eu /package/try_library.sh
for outputs in "$work"/tmp/outputs/*; do
    echo "${outputs##*/}:"
    python3 "$root/tools/package/compare.py" "$arch" "$expected" "$outputs"
done
