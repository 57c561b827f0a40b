#!/usr/bin/env bash
# Runs everything that needs a GPU, and prints a block to paste.
#
#   tools/gpu_checks.sh [BUNDLE...]
#
# Needs TensorRT or TensorRT-RTX: installed, given in LOFTUP_TENSORRT (a library
# or a directory), or downloaded with tools/fetch_tensorrt.sh. Runs the conformance
# suite and the golden cases on the GPU, then benchmarks each bundle on every
# backend. Without bundles it creates one from the built-in weights, whose times are
# not representative of a real model.
#
# Without Rust, as on a robot, it uses the installed `loftup` and skips the suite.
set -euo pipefail
bundles=()
for bundle in "$@"; do bundles+=("$(realpath -- "$bundle")"); done
cd "$(dirname "$0")/.."

cache=${LOFTUP_NVIDIA_CACHE:-$HOME/.cache/loftup-edge/nvidia}
if [ -z "${LOFTUP_TENSORRT:-}" ] && ! ldconfig -p 2>/dev/null | grep -q 'libnvinfer\.so'; then
    for name in rtx-1.7 rtx-1.4; do
        if [ -d "$cache/$name" ]; then
            export LOFTUP_TENSORRT="$cache/$name"
            break
        fi
    done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
report=$work/report
failed=0

step() {
    echo "== $*" >&2
    local state=0
    "$@" >"$work/log" 2>&1 || state=$?
    # Without the output of cargo and the test harness.
    grep -vE '^(running [0-9]|test result|$| *(Finished|Running|Compiling|Blocking) )' "$work/log" |
        tail -n 400 || true
    if [ $state -ne 0 ]; then
        failed=1
        echo "FAILED ($state): $*"
    fi
}

if command -v cargo >/dev/null; then
    cargo build -p loftup >&2
    loftup=${CARGO_TARGET_DIR:-target}/debug/loftup
else
    loftup=$(command -v loftup) || {
        echo "$0: neither cargo nor loftup is installed: install one of them" >&2
        exit 1
    }
fi

if [ ${#bundles[@]} -eq 0 ]; then
    for model in scenes photos; do
        "$loftup" convert --builtin=$model --out "$work/$model.loftup" >&2
        bundles+=("$work/$model.loftup")
    done
fi

{
    echo '```'
    echo "loftup-edge GPU checks, $(git rev-parse --short HEAD 2>/dev/null || echo 'no git'), $(date -u +%F)"
    echo "host: $(uname -sm), $(nproc) cores"
    nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null ||
        tr -d '\0' 2>/dev/null </proc/device-tree/model || echo "GPU: unknown"
    echo "LOFTUP_TENSORRT=${LOFTUP_TENSORRT:-}"
    if command -v cargo >/dev/null; then
        step cargo test -p loftup-tests --test tensorrt_gpu -- --nocapture --test-threads=1
    else
        echo "conformance suite and golden cases: skipped, no cargo"
    fi
    for bundle in "${bundles[@]}"; do
        echo "-- $(basename "$bundle")"
        step "$loftup" engine build "$bundle" --engine-cache "$work/engines"
        for engine in tensorrt tract; do
            echo "$engine:"
            step "$loftup" bench "$bundle" --backend "$engine" --engine-cache "$work/engines"
        done
        echo "tensorrt with a CUDA graph:"
        step "$loftup" bench "$bundle" --backend tensorrt --cuda-graph --engine-cache "$work/engines"
        step "$loftup" verify "$bundle" --backend tensorrt --engine-cache "$work/engines"
    done
    if [ $failed -eq 0 ]; then echo "all passed"; else echo "SOMETHING FAILED"; fi
    echo '```'
} >"$report"
cat "$report"
exit $failed
