#!/usr/bin/env bash
# Compares the binding's table of virtual functions with NVIDIA's headers:
# TensorRT 10.16 and 11.4 and TensorRT-RTX 1.3 to 1.7, which are downloaded once,
# and those in the given directories.
#
#   tools/check_slots.sh [DIRECTORY WITH NvInfer.h AND NvOnnxParser.h]...
#
# Needs a C++ compiler (set CXX to use another one than c++), cargo and python3.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
"$here/fetch_tensorrt.sh" headers
for directory in "$@"; do
    if [ ! -f "$directory/NvInfer.h" ] || [ ! -f "$directory/NvOnnxParser.h" ]; then
        echo "$directory: NvInfer.h and NvOnnxParser.h not found" >&2
        exit 1
    fi
    directory=$(cd "$directory" && pwd)
    export LOFTUP_TENSORRT_HEADERS=${LOFTUP_TENSORRT_HEADERS:+$LOFTUP_TENSORRT_HEADERS:}$directory
done
cd "$here/.."
cargo test -p loftup-tensorrt --test slots -- --nocapture
