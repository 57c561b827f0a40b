#!/usr/bin/env python3
"""Checks quantized graphs, as written, with ONNX's checker and ONNX Runtime.

Usage: check_quantized.py [--emulated DIR] FP32_BUNDLE BUNDLE...        needs: numpy onnx onnxruntime

FP32_BUNDLE is what the others were made from. Every graph passes onnx.checker and loads in ONNX
Runtime with all its optimizations off, so that no rounding is fused away. The whole chain, backbone
to features of one tile, is run in ONNX Runtime on noise and compared with the 32-bit chain there;
the relative error of each graph is printed. Exit code 0 only if all of them load and run, and the
errors are those that the manifest says, within a factor of 3 and 0.02: noise is not a photograph.

DIR has the graphs that losses are measured with, for one bundle, as
`cargo run -p loftup-convert --example as_written -- BUNDLE DIR` writes them. int8: both are run in
ONNX Runtime. fp16: ONNX Runtime takes most roundings out of 16-bit graphs on a CPU, so the keys are
run by ONNX's own reference evaluator, which takes none (it would need hours for the others). They
must be apart by less than a tenth of what the rounding costs: they add up in other orders, and what
lies on the edge between two levels falls to either side.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from check_onnx import grid, scaled

PRECISIONS = ("fp16", "int8", "fp16-weights")
TILE = 32


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, inputs):
    s = session(path)
    names = [o.name for o in s.get_outputs()]
    return dict(zip(names, s.run(None, {i.name: inputs[i.name] for i in s.get_inputs()})))


def graphs(manifest, precision):
    found = {}
    if b := manifest.get("backbone"):
        found["backbone"] = b["graphs"][precision]
    if u := manifest.get("upsampler"):
        found["keys"] = u["graphs"][precision]["keys"]
        found["queries"] = u["graphs"][precision]["queries"]
    return found


def inputs_of(bundle, manifest):
    """Inputs of each graph, from the 32-bit graphs on structured noise."""
    b = manifest["backbone"]
    size = b["size"]
    rng = np.random.default_rng(5)
    coarse = rng.standard_normal((1, 3, 8, 8), dtype=np.float32)
    rows = np.arange(size["height"]) * 8 // size["height"]
    cols = np.arange(size["width"]) * 8 // size["width"]
    image = coarse[:, :, rows][:, :, :, cols]
    image = image + 0.1 * rng.standard_normal(image.shape, dtype=np.float32)
    feeds = {"backbone": {b["input"]: image}}
    files = graphs(manifest, "fp32")
    features = run(bundle / files["backbone"], feeds["backbone"])[b["output"]]
    if "upsampler" not in manifest:
        return feeds
    h, w = size["height"] // b["patch"], size["width"] // b["patch"]
    if b["layout"] == "map":
        tokens = features.reshape(1, -1, h * w).transpose(0, 2, 1)
    else:
        tokens = features[:, b["layout"]["tokens"]["extra"]:]
    feeds["keys"] = dict(features=np.ascontiguousarray(tokens), grid=grid(h, w).reshape(2, -1))
    halo = ((0, 0), (0, 0), (2, 2), (2, 2))
    cut = np.s_[:, :, : TILE + 4, : TILE + 4]
    coords = grid(size["height"], size["width"])[None]
    feeds["queries"] = dict(
        guidance=np.pad(scaled(image), halo)[cut],
        coords=np.pad(coords, halo)[cut],
        mask=np.pad(np.ones((1, 1, size["height"], size["width"]), np.float32), halo)[cut],
        **run(bundle / files["keys"], feeds["keys"]),
    )
    return feeds


def relative(found, reference):
    above = sum(((found[k] - r).astype(np.float64) ** 2).sum() for k, r in reference.items())
    below = sum((r.astype(np.float64) ** 2).sum() for r in reference.values())
    return float(np.sqrt(above / below))


def main():
    arguments = sys.argv[1:]
    emulated = None
    if arguments[0] == "--emulated":
        emulated, arguments = pathlib.Path(arguments[1]), arguments[2:]
    original = pathlib.Path(arguments[0])
    manifest = json.loads((original / "manifest.json").read_text())
    feeds = inputs_of(original, manifest)
    reference = {
        role: run(original / name, feeds[role]) for role, name in graphs(manifest, "fp32").items()
    }
    good = []
    for bundle in map(pathlib.Path, arguments[1:]):
        print(bundle)
        other = json.loads((bundle / "manifest.json").read_text())
        for precision in other.get("quantization", {}):
            assert precision in PRECISIONS, precision
            says = other["quantization"][precision]["graphs"]
            for role, name in graphs(other, precision).items():
                onnx.checker.check_model(str(bundle / name), full_check=True)
                found = run(bundle / name, feeds[role])
                error, said = relative(found, reference[role]), says[role]["relative_error"]
                fits = np.isfinite(error) and error <= 3 * said + 0.02
                good.append(fits)
                print(f"  {name}: {'ok' if fits else 'FAILED'} (relative error {error:.2e}, {said:.2e} in the manifest)")
                if emulated and (precision != "fp16" or role == "keys"):
                    if precision == "fp16":
                        evaluator = ReferenceEvaluator(str(bundle / name))
                        found = dict(zip(evaluator.output_names, evaluator.run(None, feeds[role])))
                    apart = relative(run(emulated / name, feeds[role]), found)
                    good.append(apart <= 0.1 * error)
                    print(f"    emulated: {'ok' if good[-1] else 'FAILED'} (difference from as written: {apart:.2e})")
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    sys.exit(0 if good and all(good) else 1)


if __name__ == "__main__":
    main()
