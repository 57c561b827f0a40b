#!/usr/bin/env python3
"""Checks frame graphs (`loftup export`) with ONNX's checker and ONNX Runtime.

Usage: check_frame.py LOFTUP BUNDLE...        needs: numpy onnx onnxruntime safetensors

For each bundle with a backbone and an upsampler: LOFTUP (the command line program) exports the graph
for odd sizes, with the color range of the image and a fixed one, with several tiles; the graph passes
onnx.checker; ONNX Runtime runs it on an image of noise and edges, and the features and classes are
compared with those of `LOFTUP run` for the same image. Exit code 0 only if everything is within the
tolerances.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from safetensors.numpy import save_file

from check_onnx import difference, report, session

# Camera, output, tile, range.
CASES = [
    ((97, 61), (45, 33), 16, "image"),
    ((640, 480), (112, 84), 224, "image"),
    ((33, 80), (31, 50), 224, "full"),
]
# The guidance has the same bits or differs by one ulp, unlike in the whole graph of an upsampler.
FRAME = dict(max=5e-4, mean=2e-5, cosine=0.99999)
CLASSES = 5
# Scores this close are a tie.
TIE = 1e-3


def photo(width, height):
    y, x = np.mgrid[:height, :width]
    edges = 90 * ((x // 7 + y // 5) % 3)[..., None]
    noise = np.random.default_rng(1).integers(0, 60, (height, width, 3))
    return (edges + noise).clip(0, 255).astype(np.uint8)


def head(path, features):
    """A head of classes in a file, as `loftup head` writes them, for features `[d, H, W]`."""
    dim = len(features)
    random = np.random.default_rng(2)
    weight = random.normal(size=(CLASSES, dim)).astype(np.float32) / np.float32(dim**0.5)
    # Without the mean, no class wins everywhere.
    bias = -weight @ features.mean((1, 2))
    names = [str(i) for i in range(CLASSES)]
    described = json.dumps({"kind": {"classes": {"names": names}}, "dim": dim})
    tensors = {"weight": weight, "bias": bias}
    save_file(tensors, str(path), metadata={"loftup_head": described})
    return np.einsum("kd,dhw->hwk", weight, features) + bias


def quietly(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check(loftup, bundle, folder):
    manifest = json.loads((bundle / "manifest.json").read_text())
    if not (manifest.get("backbone") and manifest.get("upsampler")):
        print("  no backbone or no upsampler: no frame graph")
        return True
    good = True
    for (width, height), (w, h), tile, color_range in CASES:
        image = photo(width, height)
        (folder / "image.ppm").write_bytes(b"P6 %d %d 255\n" % (width, height) + image.tobytes())
        name = f"{width}x{height} to {w}x{h}, range {color_range}"
        same = ["--size", f"{w}x{h}", "--range", color_range]
        export = [loftup, "export", bundle, "--camera", f"{width}x{height}", "--tile", str(tile), *same]
        run = [loftup, "run", bundle, "--backend", "tract", "--image", folder / "image.ppm", *same]
        classes = ["--head", folder / "head.safetensors", "--output", "classes,scores"]
        quietly([*run, "--out", folder / "f.npy"])
        expected = np.load(folder / "f.npy")
        expected_scores = head(folder / "head.safetensors", expected[0])
        for file, options in [("features.onnx", []), ("classes.onnx", classes)]:
            quietly([*export, *options, "--out", folder / file])
            onnx.checker.check_model(str(folder / file), full_check=True)
        (found,) = session(folder / "features.onnx").run(None, {"image": image[None]})
        good &= report(name, difference(found.transpose(0, 3, 1, 2), expected), FRAME)

        found, scores = session(folder / "classes.onnx").run(None, {"image": image[None]})
        best = expected_scores.max(-1)
        chosen = np.take_along_axis(expected_scores, found[0, ..., None].astype(np.int64), -1)[..., 0]
        wrong = int((best - chosen > TIE).sum())
        own = int((scores.argmax(-1) != found).sum())
        kinds = len(np.unique(found))
        fine = wrong == 0 and own == 0 and kinds > 1 and found.dtype == np.uint8
        print(f"  classes: {'ok' if fine else 'FAILED'} ({kinds} classes, {wrong} wrong beyond ties)")
        good &= fine
    return good


def main():
    loftup, *bundles = sys.argv[1:]
    good = True
    for bundle in map(pathlib.Path, bundles):
        print(bundle)
        with tempfile.TemporaryDirectory() as folder:
            good &= check(loftup, bundle, pathlib.Path(folder))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
