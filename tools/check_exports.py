#!/usr/bin/env python3
"""Converts exported models of PyTorch, and compares features with PyTorch.

Usage: check_exports.py LOFTUP [NAME...]
Needs: torch onnx onnxruntime onnxscript timm transformers numpy

Small models of timm, transformers and a convolutional pyramid, with random weights, are exported by
torch.onnx.export: by the TorchScript exporter (dynamo=False) and by the torch.export one
(dynamo=True, weights in a file of their own), with fixed shapes, a dynamic batch, and a dynamic batch
with dynamic sides, in float32 and float16. Each file goes through `loftup convert --backbone-onnx`
and `loftup run`; the features are compared with the model's own in float32.

A bundle computes a float16 file in 32 bits, with the values of its weights. The exporters compute
some of these weights themselves, in 16 bits: the weights of a convolution times those of its
normalization, for example. So a float16 file is compared with ONNX Runtime, which gets the same file
with its types made float32 and runs it without optimizations. The last column says how far that is
from the model with rounded weights in PyTorch: the exporter's own error, which is not judged.

The largest difference may be 1e-4 of the largest feature. One line for each export.
Where PyTorch itself fails to export, the line says so and counts as nothing. Exit code 0 only if
every exported file converts and agrees. NAME limits the run to models whose name contains it.
"""

import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import onnx
import onnxruntime
import timm
import torch
import transformers

TOLERANCE = 1e-4
SIZE = (96, 128)  # height, width
OTHER = (128, 160)


class Pyramid(torch.nn.Module):
    """Strided convolutions, with the coarser map added to the finer one as in an FPN."""

    def __init__(self):
        super().__init__()
        norm = torch.nn.BatchNorm2d
        stage = lambda i, o: torch.nn.Sequential(
            torch.nn.Conv2d(i, o, 3, 2, 1, bias=False), norm(o), torch.nn.SiLU()
        )
        self.stem = torch.nn.Sequential(stage(3, 16), stage(16, 24), stage(24, 32))
        self.fine, self.coarse = stage(32, 48), stage(48, 64)
        self.lateral = torch.nn.Conv2d(48, 40, 1)
        self.top = torch.nn.Conv2d(64, 40, 1)

    def forward(self, x):
        fine = self.fine(self.stem(x))
        top = self.top(self.coarse(fine))
        return self.lateral(fine) + torch.nn.functional.interpolate(top, scale_factor=2.0)


class Tokens(torch.nn.Module):
    """The patch and extra tokens of a model of timm or transformers."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(self.model, x)


hidden = lambda model, x: model(pixel_values=x).last_hidden_state


def timm_vit(name, **more):
    model = timm.create_model(name, depth=2, img_size=SIZE, dynamic_img_size=True, **more)
    return Tokens(model, lambda m, x: m.forward_features(x))


def dinov2(kind):
    config = getattr(transformers, kind + "Config")(
        hidden_size=96, num_hidden_layers=2, num_attention_heads=3, image_size=128, patch_size=16
    )
    return Tokens(getattr(transformers, kind + "Model")(config), hidden)


def siglip():
    config = transformers.SiglipVisionConfig(
        hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=3,
        image_size=SIZE[0], patch_size=16, vision_use_head=False,
    )  # fmt: skip
    return Tokens(transformers.SiglipVisionModel(config), hidden)


# Model, leading tokens, and its size if it is fixed.
MODELS = {
    "timm ViT": (lambda: timm_vit("vit_tiny_patch16_224"), 1, None),
    "timm ViT, 4 registers": (lambda: timm_vit("vit_medium_patch16_reg4_gap_256"), 4, None),
    "timm DeiT, distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), 2, None),
    "DINOv2": (lambda: dinov2("Dinov2"), 1, None),
    "DINOv2, registers": (lambda: dinov2("Dinov2WithRegisters"), 5, None),
    "SigLIP vision": (siglip, 0, (SIZE[0], SIZE[0])),
    "conv pyramid": (Pyramid, None, None),
}


def built(make):
    torch.manual_seed(3)
    model = make().eval()
    for module in model.modules():  # Running statistics as after a training.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def export(model, path, dynamo, opset, dynamic, half, size):
    x = torch.randn(2 if dynamic and dynamo else 1, 3, *size)
    if half:
        model, x = model.half(), x.half()
    options = dict(input_names=["pixels"], output_names=["features"], opset_version=opset)
    if dynamo:
        if dynamic:
            shape = {0: torch.export.Dim.DYNAMIC}
            if dynamic == "sides":
                shape |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
            options["dynamic_shapes"] = (shape,)
        options |= dict(external_data=True, verbose=False)
    elif dynamic:
        axes = {0: "batch"} | ({2: "height", 3: "width"} if dynamic == "sides" else {})
        options["dynamic_axes"] = {"pixels": axes, "features": {0: "batch"}}
    with torch.no_grad():
        torch.onnx.export(model, (x,), str(path), dynamo=dynamo, **options)


def widened(path):
    """The float16 file at `path` with all its types float32, as a session of ONNX Runtime."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    widen = lambda t: t.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(t).astype(np.float32), t.name)
    )

    def visit(graph):
        for tensor in graph.initializer:
            if tensor.data_type == half:
                widen(tensor)
        for attribute in (a for node in graph.node for a in node.attribute):
            if attribute.name in ("to", "dtype", "stash_type") and attribute.i == half:
                attribute.i = single
            if attribute.t.data_type == half:
                widen(attribute.t)
            if attribute.type == onnx.AttributeProto.GRAPH:
                visit(attribute.g)
        for value in list(graph.input) + list(graph.output):
            if value.type.tensor_type.elem_type == half:
                value.type.tensor_type.elem_type = single
        del graph.value_info[:]

    model = onnx.load(str(path))
    visit(model.graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def reference(model, x, extra):
    """Features of a model of PyTorch or a session of ONNX Runtime."""
    if isinstance(model, onnxruntime.InferenceSession):
        y = model.run(None, {"pixels": x})[0]
    else:
        with torch.no_grad():
            y = model(torch.from_numpy(x)).numpy()
    if extra is None:
        return y
    h, w = x.shape[2] // 16, x.shape[3] // 16
    return y[:, extra:].transpose(0, 2, 1).reshape(1, -1, h, w)


def check(loftup, model, extra, path, size, dynamic, directory, half=False):
    """A result line for the file at `path`, and whether it passed."""
    bundle, image, out = (directory / n for n in ("b.loftup", "x.npy", "y.npy"))
    command = [loftup, "convert", "--backbone-onnx", path, "--patch", "16", "--out", bundle, "--force"]
    if dynamic == "sides":
        command += ["--size", f"{size[1]}x{size[0]}"]
    env = dict(os.environ, RUST_LOG="info")
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1], False
    score = re.findall(r"correlation of ([0-9.-]+)", done.stderr)
    any_size = "any multiple of the patch" in done.stdout
    session = widened(path) if half else None
    worst = folded = 0.0
    for side in [size] + [OTHER] * any_size:
        x = np.random.default_rng(5).standard_normal((1, 3, *side), dtype=np.float32)
        np.save(image, x)
        run = [loftup, "run", bundle, "--image", image, "--out", out]
        done = subprocess.run([str(c) for c in run], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1], False
        y, wanted = np.load(out), reference(model, x, extra)
        if y.shape != wanted.shape:
            return f"features {y.shape}, expected {wanted.shape}", False
        largest = np.abs(wanted).max()
        if half:
            same = reference(session, x, extra)
            folded = max(folded, np.abs(same - wanted).max() / largest)
            wanted = same
        worst = max(worst, np.abs(y - wanted).max() / largest)
    sizes = "any size" if any_size else "one size"
    line = f"{sizes:8}  correlation {score[0] if score else '?':>6}  error {worst:.1e}"
    line += f"  exporter {folded:.1e}" if half else ""
    return line, worst <= TOLERANCE


def newest_opset(directory):
    for opset in range(26, 18, -1):
        try:
            export(built(Pyramid), directory / "newest.onnx", True, opset, None, False, SIZE)
            return opset
        except Exception:
            continue
    return 18


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    loftup, names = sys.argv[1], sys.argv[2:]
    bad = count = 0
    with tempfile.TemporaryDirectory() as d:
        directory = pathlib.Path(d)
        newest = newest_opset(directory)
        print(f"torch {torch.__version__}, timm {timm.__version__}, transformers {transformers.__version__}, newest opset {newest}")
        kinds = [
            (dynamo, opset, dynamic, half)
            for dynamo, opset in ((False, 17), (True, 18))
            for dynamic in (None, "batch", "sides")
            for half in (False, True)
        ] + [(True, newest, "batch", False)]
        for name, (make, extra, only) in MODELS.items():
            if names and not any(n in name for n in names):
                continue
            size = only or SIZE
            for dynamo, opset, dynamic, half in kinds:
                if only and dynamic == "sides":
                    continue
                label = f"{name:22} {'dynamo' if dynamo else 'script'} {opset}  {dynamic or 'fixed':5}  {'float16' if half else 'float32'}"
                with tempfile.TemporaryDirectory() as e:
                    path = pathlib.Path(e) / "model.onnx"
                    try:
                        export(built(make), path, dynamo, opset, dynamic, half, size)
                    except Exception as error:
                        what = str(error).strip().splitlines() or [type(error).__name__]
                        print(f"{label}  not exported by PyTorch: {what[0][:90]}", flush=True)
                        continue
                    model = built(make)
                    model = model.half().float() if half else model
                    line, good = check(loftup, model, extra, path, size, dynamic, directory, half)
                count += 1
                bad += not good
                print(f"{label}  {'ok    ' if good else 'FAILED'}  {line}", flush=True)
    print(f"{count} files, {bad} failed")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
