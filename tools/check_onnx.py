#!/usr/bin/env python3
"""Checks the exported graphs with ONNX's checker and ONNX Runtime.

Usage: check_onnx.py [--with-head PROGRAM] LOFTUP BUNDLE...        needs: numpy onnx onnxruntime safetensors

For each bundle: every graph passes onnx.checker and loads in ONNX Runtime; an upsampler is run on
odd sizes in ONNX Runtime, as the whole graph and cut into keys and queries, and by LOFTUP (the
command line program), and the answers are compared. A backbone is run on noise by both. With PROGRAM
(target/debug/examples/with_head, of loftup-onnx), a head is added to the queries graph of every
precision, and its outputs are compared with those computed from the features. Exit code 0 only if
everything is within the tolerances of the documentation.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from safetensors import safe_open

UPSAMPLER = dict(max=5e-3, mean=2e-4, cosine=0.99999)
BACKBONE = dict(max=1e-4, mean=1e-4, cosine=0.99999)
# The same features, and products with up to d of them, in 32 bits.
SAME = dict(max=1e-5, mean=1e-6, cosine=0.999999)
HEAD = dict(max=1e-4, mean=1e-5, cosine=0.999999)
# Grid (h, w) and guidance (H, W).
SIZES = [((18, 31), (180, 310)), ((5, 9), (71, 43))]


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def linspace(n):
    """torch.linspace(-1, 1, n) in float32: one rounding per point, from both ends."""
    step = np.float64(np.float32(2) / np.float32(max(n - 1, 1)))
    i = np.arange(n)
    line = np.where(i < max(n // 2, 1), i * step - 1, 1 - (n - 1 - i) * step)
    return line.astype(np.float32)


def grid(h, w):
    y, x = np.meshgrid(linspace(h), linspace(w), indexing="ij")
    return np.stack([y, x])


def scaled(image):
    low, high = image.min((2, 3), keepdims=True), image.max((2, 3), keepdims=True)
    return (image - low) / np.maximum(high - low, np.float32(1e-4)) - np.float32(0.5)


def difference(a, b):
    a, b = (x.reshape(x.shape[-3], -1).astype(np.float64) for x in (a, b))
    cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    return dict(max=np.abs(a - b).max(), mean=np.abs(a - b).mean(), cosine=cosine.min())


def report(name, d, tolerance):
    good = d["max"] <= tolerance["max"] and d["mean"] <= tolerance["mean"] and d["cosine"] >= tolerance["cosine"]
    word = "ok" if good else "FAILED"
    print(f"  {name}: {word} (max {d['max']:.1e}, mean {d['mean']:.1e}, cosine {d['cosine']:.7f})")
    return good


def run(loftup, bundle, directory, *arguments):
    out = directory / "out.npy"
    command = [loftup, "run", bundle, "--out", out, *arguments]
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    return np.load(out)


def check_head(with_head, bundle, files, precision, inputs, dim, directory):
    """The queries graph with a head against the queries graph and then the head."""
    queries, fused = bundle / files["queries"], directory / "with-head.onnx"
    subprocess.run([str(c) for c in (with_head, queries, fused)], check=True)
    onnx.checker.check_model(str(fused), full_check=True)
    features = session(queries).run(None, inputs)[0]
    program, good = session(fused), []
    for outputs in (1, 21, dim + 3):
        rng = np.random.default_rng(outputs)
        weight = rng.uniform(-1, 1, (outputs, dim)).astype(np.float32)
        bias, offset = (rng.uniform(-1, 1, n).astype(np.float32) for n in (outputs, dim))
        scale = rng.uniform(0.5, 1.5, dim).astype(np.float32)
        head = dict(head_weight=weight, head_bias=bias, head_scale=scale, head_offset=offset)
        same, scores, moments = program.run(["upsampled", "head", "moments"], inputs | head)
        x = same.astype(np.float64) * scale + offset
        expected = np.concatenate([x @ weight.T.astype(np.float64) + bias, x.mean(1, keepdims=True), (x * x).mean(1, keepdims=True)], 1)
        found = np.concatenate([scores, moments], 1)
        name = f"{precision}, head of {outputs} outputs"
        good += [
            report(f"{name}: features with and without it", difference(same.T[:, None], features.T[:, None]), SAME),
            report(f"{name}: against the two steps", difference(found.T[:, None], expected.T[:, None]), HEAD),
        ]
    return good


def check_upsampler(loftup, bundle, upsampler, size, directory, with_head):
    (h, w), (height, width) = size
    rng = np.random.default_rng(7)
    features = rng.standard_normal((1, upsampler["dim"], h, w), dtype=np.float32)
    image = rng.standard_normal((1, 3, height, width), dtype=np.float32)
    np.save(directory / "features.npy", features)
    np.save(directory / "image.npy", image)
    graphs = upsampler["graphs"]
    files = graphs.get("fp32") or next(iter(graphs.values()))
    whole = "whole" in files and session(bundle / files["whole"]).run(None, dict(features=features, guidance=image))[0]
    keys = session(bundle / files["keys"])
    tokens = features.reshape(1, -1, h * w).transpose(0, 2, 1)
    pairs = keys.run(None, dict(features=tokens, grid=grid(h, w).reshape(2, -1)))
    inputs = {o.name: v for o, v in zip(keys.get_outputs(), pairs)}
    halo = ((0, 0), (0, 0), (2, 2), (2, 2))
    inputs["guidance"] = np.pad(scaled(image), halo)
    inputs["coords"] = np.pad(grid(height, width)[None], halo)
    inputs["mask"] = np.pad(np.ones((1, 1, height, width), np.float32), halo)
    heads = []
    for precision, named in graphs.items() if with_head else ():
        heads += check_head(with_head, bundle, named, precision, inputs, upsampler["dim"], directory)
    if "fp32" not in graphs:  # A quantized bundle, for whose numbers there is check_quantized.py.
        return heads
    cut = session(bundle / files["queries"]).run(None, inputs)[0]
    cut = cut.T.reshape(whole.shape)
    ours = run(
        loftup, bundle, directory,
        "--features", directory / "features.npy", "--guidance", directory / "image.npy",
    )
    name = f"grid {h}x{w}, guidance {height}x{width}"
    return heads + [
        report(f"{name}: whole graph, ONNX Runtime against loftup", difference(whole, ours), UPSAMPLER),
        report(f"{name}: keys and queries, ONNX Runtime against loftup", difference(cut, ours), UPSAMPLER),
    ]


def rotary(n, periods):
    """Cosines and sines of n rows or columns, [2, n, 16]."""
    at = 2 * (np.arange(n) + 0.5) / n - 1
    angles = 2 * np.pi * at[:, None] / periods.astype(np.float64)
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def pooling(cells, pixels):
    """Adaptive average pooling as a matrix, [cells, pixels]."""
    shares = np.zeros((cells, pixels), np.float32)
    for i in range(cells):
        start, end = i * pixels // cells, -(-(i + 1) * pixels // cells)
        shares[i, start:end] = 1 / (end - start)
    return shares


def naf_cut(bundle, upsampler, tokens, image, grid, weight, bias):
    """Keys and queries in ONNX Runtime, in two tiles of whole cells: features, and a linear head."""
    (h, w), (height, width) = grid, image.shape[2:]
    files, heads, halo = upsampler["graphs"]["fp32"], upsampler["heads"], 5
    down, across = height // h, width // w
    with safe_open(bundle / upsampler["weights"], "np") as file:
        periods = file.get_tensor("image_encoder.rope.periods")
    rows, columns = rotary(height, periods), rotary(width, periods)
    keys = session(bundle / files["keys"])
    frame = dict(guidance=image, rotary_rows=rows[:, None], rotary_columns=columns[:, None])
    frame |= dict(pool_rows=pooling(h, height), pool_columns=pooling(w, width))
    norms = {o.name: v for o, v in zip(keys.get_outputs(), keys.run(None, frame))}
    projected = np.einsum("nhc,khc->nhk", tokens.reshape(h * w, heads, -1), weight.reshape(len(bias), heads, -1))
    projected = projected.reshape(h * w, -1).astype(np.float32)
    queries, features, scores = session(bundle / files["queries"]), [], []
    for first, last in ((0, h // 2), (h // 2, h)):
        top, bottom = max(first * down - halo, 0), min(last * down + halo, height)
        cells, pixels = [], []
        for r in range(first, last):
            for c in range(w):
                y, x = min(max(r - 4, 0), h - 9), min(max(c - 4, 0), w - 9)
                cells.append([(y + i) * w + x + j for i in range(9) for j in range(9)])
                pixels.append([(r * down + i - top) * width + c * across + j for i in range(down) for j in range(across)])
        # The place of each pixel of the tile in the groups.
        order = np.argsort(np.array(pixels).ravel())
        tile = dict(
            guidance=image[:, :, top:bottom], rotary_rows=rows[:, None, top:bottom], rotary_columns=columns[:, None],
            pixels=np.array(pixels, np.float32), cells=np.array(cells, np.float32), order=order.astype(np.float32),
        )  # fmt: skip
        of_features = dict(values=tokens, bias=np.zeros(tokens.shape[1] // heads, np.float32))
        features += queries.run(["upsampled"], norms | tile | of_features)
        scores += queries.run(["head"], norms | tile | dict(values=projected, bias=bias))
    return np.concatenate(features), np.concatenate(scores)


def check_naf(loftup, bundle, manifest, directory):
    """The graph for the size of the backbone's input, and the two that it is cut into, against loftup."""
    upsampler, backbone = manifest["upsampler"], manifest["backbone"]
    height, width = backbone["size"]["height"], backbone["size"]["width"]
    h, w = height // backbone["patch"], width // backbone["patch"]
    rng = np.random.default_rng(7)
    features = rng.standard_normal((1, upsampler["dim"], h, w), dtype=np.float32)
    image = rng.standard_normal((1, 3, height, width), dtype=np.float32)
    mean, std = (np.float32(manifest["normalization"][k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
    imagenet = [np.float32(x).reshape(1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    np.save(directory / "features.npy", features)
    np.save(directory / "image.npy", ((image * imagenet[1] + imagenet[0] - mean) / std).astype(np.float32))
    theirs = session(bundle / upsampler["whole"]).run(None, dict(features=features, guidance=image))[0]
    ours = run(
        loftup, bundle, directory,
        "--features", directory / "features.npy", "--guidance", directory / "image.npy",
    )
    name = f"NAF, grid {h}x{w}, guidance {height}x{width}"
    found = [report(f"{name}: whole graph, ONNX Runtime against loftup", difference(theirs, ours), BACKBONE)]
    if "graphs" not in upsampler or "fp32" not in upsampler["graphs"] or height % h or width % w:
        return found
    tokens = np.ascontiguousarray(features.reshape(upsampler["dim"], -1).T)
    weight = rng.standard_normal((19, upsampler["dim"]), dtype=np.float32) / np.float32(upsampler["dim"] ** 0.5)
    bias = rng.standard_normal(19, dtype=np.float32)
    cut, scores = naf_cut(bundle, upsampler, tokens, image, (h, w), weight, bias)
    pixels = ours.reshape(upsampler["dim"], -1).T.astype(np.float64)
    expected = pixels @ weight.T.astype(np.float64) + bias
    return found + [
        report(f"{name}: keys and queries, ONNX Runtime against loftup", difference(cut.T[:, None], pixels.T[:, None]), BACKBONE),
        report(f"{name}: a head in the queries", difference(scores.T[:, None], expected.T[:, None]), BACKBONE),
    ]


def check_backbone(loftup, bundle, backbone, directory):
    size = backbone["size"]
    image = np.random.default_rng(3).standard_normal((1, 3, size["height"], size["width"]), dtype=np.float32)
    np.save(directory / "image.npy", image)
    theirs = session(bundle / backbone["graphs"]["fp32"]).run([backbone["output"]], {backbone["input"]: image})[0]
    if backbone["layout"] != "map":
        print("  backbone: tokens, not compared")
        return []
    ours = run(loftup, bundle, directory, "--image", directory / "image.npy")
    return [report("backbone: ONNX Runtime against loftup", difference(theirs, ours), BACKBONE)]


def main():
    arguments, with_head = sys.argv[1:], None
    if arguments[0] == "--with-head":
        with_head, arguments = arguments[1], arguments[2:]
    loftup, bundles = arguments[0], [pathlib.Path(b) for b in arguments[1:]]
    good = []
    for bundle in bundles:
        print(bundle)
        manifest = json.loads((bundle / "manifest.json").read_text())
        for name in manifest["files"]:
            if name.endswith(".onnx"):
                onnx.checker.check_model(str(bundle / name), full_check=True)
                print(f"  {name}: onnx.checker ok")
        with tempfile.TemporaryDirectory() as directory:
            directory = pathlib.Path(directory)
            if upsampler := manifest.get("upsampler"):
                if upsampler.get("kind") == "naf":
                    good += check_naf(loftup, bundle, manifest, directory)
                    continue
                for size in SIZES:
                    good += check_upsampler(loftup, bundle, upsampler, size, directory, with_head)
            elif backbone := manifest.get("backbone"):
                good += check_backbone(loftup, bundle, backbone, directory)
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    sys.exit(0 if good and all(good) else 1)


if __name__ == "__main__":
    main()
