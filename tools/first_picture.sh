#!/usr/bin/env bash
# From a checkpoint and a picture to dense features: converts the small backbone and upsampler that
# ship as test data, asks them for a picture, and says where the result lies.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-first-picture}
weights=tests/data/golden/weights
loftup() { cargo run --quiet --package loftup-cli -- "$@"; }

mkdir -p "$out"
loftup convert --force \
  --backbone dinov2 --backbone-weights "$weights/dinov2.bin" --heads 3 \
  --upsampler-weights "$weights/loftup_odd.ckpt" --size 322x238 \
  --out "$out/small.loftup"
loftup run "$out/small.loftup" --image tests/data/scene.png --size 322x238 \
  --out "$out/features.npy" --picture "$out/picture.png"
echo "Look at $out/picture.png"
