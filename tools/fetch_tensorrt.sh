#!/usr/bin/env bash
# Downloads NVIDIA's TensorRT libraries and headers for optional tests of
# loftup-tensorrt. Nothing else needs them.
#
#   tools/fetch_tensorrt.sh            libraries and headers
#   tools/fetch_tensorrt.sh libraries  only the libraries (about 310 MB to download, 900 MB on disk)
#   tools/fetch_tensorrt.sh headers    only the headers
#   tools/fetch_tensorrt.sh full       also TensorRT 8.5 (550 MB more to download)
#
# They go to $LOFTUP_NVIDIA_CACHE, by default ~/.cache/loftup-edge/nvidia. The
# libraries are NVIDIA's, under NVIDIA's license: do not commit or redistribute.
# Needs python3 with pip (set PYTHON to use another one), and cargo for the headers.
set -euo pipefail

cache=${LOFTUP_NVIDIA_CACHE:-$HOME/.cache/loftup-edge/nvidia}
python=${PYTHON:-python3}
what=${1:-all}
mkdir -p "$cache"
trap 'rm -rf "$cache"/.fetch.*' EXIT

# name of the directory in the cache, then the wheel
wheels="
rtx-1.7       tensorrt-rtx-cu13-libs==1.7.1.116
rtx-1.4       tensorrt-rtx-cu13-libs==1.4.0.76
lean-10.16    tensorrt-lean-cu12-libs==10.16.1.11
lean-11.4     tensorrt-lean-cu12-libs==11.4.0.106
lean-11.4-13  tensorrt-lean-cu13-libs==11.4.0.106
"

# Directories are moved to the cache when they are complete.
fetch_wheel() {
    local name=$1 wheel=$2 work
    if [ -d "$cache/$name" ]; then
        echo "$name: already downloaded"
        return
    fi
    echo "$name: downloading $wheel"
    work=$(mktemp -d "$cache/.fetch.XXXXXX")
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --dest "$work" "$wheel"
    "$python" -m zipfile -e "$work"/*.whl "$work/unpacked"
    mkdir "$work/done"
    find "$work/unpacked" -type f -name 'lib*.so*' -exec mv {} "$work/done/" \;
    find "$work/unpacked" -type f -iname 'licen[sc]e*' -exec mv {} "$work/done/" \;
    mv "$work/done" "$cache/$name"
    rm -rf "$work"
}

# The tests only use the library's version and the parser of the full TensorRT 8.5.
fetch_full() {
    local work
    if [ -d "$cache/full-8.5" ]; then
        echo "full-8.5: already downloaded"
        return
    fi
    echo "full-8.5: downloading tensorrt==8.5.3.1"
    work=$(mktemp -d "$cache/.fetch.XXXXXX")
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 310 --implementation cp --platform manylinux_2_17_x86_64 \
        --dest "$work" tensorrt==8.5.3.1 </dev/null
    "$python" -m zipfile -e "$work"/*.whl "$work/unpacked"
    mkdir "$work/done"
    mv "$work"/unpacked/tensorrt/libnvinfer.so.8 "$work"/unpacked/tensorrt/libnvonnxparser.so.8 "$work/done/"
    find "$work/unpacked" -type f -iname 'licen[sc]e*' -exec mv {} "$work/done/" \;
    mv "$work/done" "$cache/full-8.5"
    rm -rf "$work"
}

# The source of the crate trtx-sys contains NVIDIA's headers.
fetch_headers() {
    local version work manifest
    if [ -d "$cache/headers" ]; then
        echo "headers: already downloaded"
        return
    fi
    work=$(mktemp -d "$cache/.fetch.XXXXXX")
    mkdir "$work/headers"
    for version in 0.5.0 0.9.1; do
        echo "headers: downloading trtx-sys $version"
        mkdir -p "$work/$version/src"
        touch "$work/$version/src/lib.rs"
        printf '[package]\nname = "headers"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\ntrtx-sys = "=%s"\n[workspace]\n' \
            "$version" >"$work/$version/Cargo.toml"
        manifest=$(cargo metadata --quiet --format-version 1 --manifest-path "$work/$version/Cargo.toml" |
            "$python" -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "trtx-sys"))')
        cp -R "$(dirname "$manifest")/TensorRT-Headers/." "$work/headers/"
    done
    mv "$work/headers" "$cache/headers"
    rm -rf "$work"
}

case $what in all | libraries | headers | full) ;; *)
    echo "usage: $0 [all | libraries | headers | full]" >&2
    exit 2
    ;;
esac
if [ "$what" = all ] || [ "$what" = libraries ] || [ "$what" = full ]; then
    while read -r name wheel; do
        if [ -n "$name" ]; then fetch_wheel "$name" "$wheel" </dev/null; fi
    done <<<"$wheels"
fi
if [ "$what" = all ] || [ "$what" = headers ] || [ "$what" = full ]; then
    fetch_headers
fi
if [ "$what" = full ]; then fetch_full; fi
du -sh "$cache"/* 2>/dev/null || true
