#!/bin/sh
# Counts the instructions of the CPU kernels on 64-bit ARM for one 32x32 tile of the upsampler's queries, in
# each arithmetic, with a plugin of qemu-aarch64: a stand-in for time where there is no ARM machine.
#
# Prints millions of instructions: on vectors and floats, loads and stores, others, all.
#
#   tools/count_instructions.sh [CHANNELS [CPU]]    default: 384 channels, QEMU's CPU "max"
#
# Needs a C compiler, qemu-aarch64 built with plugins (Debian's is), and what tools/cross_aarch64.sh needs.
# With PROGRAM set to the example `tile` of loftup-kernels, built for aarch64, and SYSROOT to the C library for it,
# the kernels are not compiled.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
channels=${1:-384}
cpu=${2:-max}
out=${CARGO_TARGET_DIR:-$root/target}/cross
mkdir -p "$out"

if [ -z "${PROGRAM:-}" ]; then
    "$root/tools/cross_aarch64.sh" cargo build --locked --profile dist -p loftup-kernels --example tile
    PROGRAM=$out/aarch64-unknown-linux-gnu/dist/examples/tile
fi
. "$root/tools/debian.sh"
run() { # ARGUMENTS OF THE PROGRAM...
    qemu-aarch64 -L "${SYSROOT:-$sid/sysroot/arm64}" -cpu "$cpu" -plugin "$plugin" "$PROGRAM" "$@"
}

# The version of the plugin interface depends on QEMU's.
plugin=$out/count_instructions.so
version=1
while :; do
    cc -O2 -Wall -Wextra -shared -fPIC -fvisibility=hidden -DVERSION=$version \
        -o "$plugin" "$root/tools/count_instructions.c"
    if run 12 fp32 0 >/dev/null 2>"$out/count_instructions.log"; then break; fi
    if [ $version = 6 ]; then
        cat "$out/count_instructions.log" >&2
        exit 1
    fi
    version=$((version + 1))
done

# Instructions: vectors and floating point, loads and stores, others.
count() { # ARITHMETIC RUNS
    run "$channels" "$1" "$2" 2>&1 >/dev/null | sed -n 's/^instructions //p'
}

base=
printf '%-6s %12s %12s %12s %12s\n' '' arithmetic memory other all
for arithmetic in fp32 int16 fp16 bf16 int8; do
    if ! run 12 $arithmetic 0 >/dev/null 2>&1; then
        printf '%-6s not available on this CPU\n' $arithmetic
        continue
    fi
    # The second run alone: the first one also fills caches.
    counts="$(count $arithmetic 1) $(count $arithmetic 2)"
    base=${base:-$counts}
    echo "$counts $base" | awk -v name=$arithmetic '{
        a = $4 - $1; m = $5 - $2; o = $6 - $3; all = $10 + $11 + $12 - $7 - $8 - $9
        printf "%-6s %12.1f %12.1f %12.1f %12.1f (%.2f)\n",
            name, a / 1e6, m / 1e6, o / 1e6, (a + m + o) / 1e6, (a + m + o) / all
    }'
done
