#!/usr/bin/env python3
"""Times one LoftUp frame in PyTorch, ONNX Runtime, OpenVINO and `loftup bench` on this machine, alternating,
and prints the processor seconds, their ratios and the errors as a Markdown table.

All of them compute the same: a random LoftUp of the given width is written as a checkpoint, run by a
plain PyTorch module, exported by it for ONNX Runtime and OpenVINO, and converted by `loftup`. In 32 bits their
answers are compared first. In other precisions the error is printed, as the root mean square of the difference to
PyTorch in standard deviations of the features.

    python tools/bench_peers.py --loftup target/debug/loftup [--dim 384] [--side 224] [--threads 1]
        [--precisions fp32,int16,bf16,int8]

Needs torch, numpy, onnx, onnxruntime; OpenVINO is left out if it is not installed.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loftup", required=True, type=Path, help="the command to measure")
    parser.add_argument("--dim", type=int, default=384, help="channels of the features")
    parser.add_argument("--side", type=int, default=224, help="side of the square output")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", default="fp32", help="of `loftup --cpu-precision`, separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


ARGS = arguments()
# Both libraries read these when they are loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(ARGS.threads)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

try:
    import openvino
except ImportError:
    openvino = None

torch.set_num_threads(ARGS.threads)


class ChannelNorm(nn.Module):
    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def grid(x):
    """Rows and columns of every pixel of x, -1 to 1: [1, 2, H, W]."""
    height, width = x.shape[2:]
    rows, cols = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"))[None]


class Waves(nn.Module):
    """Sines and cosines of every channel at every frequency, frequency-major."""

    def __init__(self, channels, frequencies):
        super().__init__()
        self.biases = nn.Parameter(torch.randn(2, channels, frequencies))
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(-2, 10, frequencies)), persistent=False
        )

    def forward(self, x):
        turned = self.frequencies[:, None, None, None] * x[0][None]
        phases = self.biases.reshape(2, len(self.frequencies), x.shape[1], 1, 1)
        parts = [torch.sin(turned + phases[0]), torch.cos(turned + phases[1])]
        return torch.cat([p.flatten(0, 1) for p in parts])[None]


class CrossAttention(nn.Module):
    def __init__(self, width, heads=4):
        super().__init__()
        self.norm_q, self.norm_kv = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, q, kv):
        kv = self.norm_kv(kv)
        return self.attention(self.norm_q(q), kv, kv, need_weights=False)[0]


class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0),
            nn.Linear(hidden, width),
        )

    def forward(self, x):
        return self.net(x)


class Layers(nn.Module):
    def __init__(self, width, hidden, count=2):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([CrossAttention(width), FeedForward(width, hidden)]) for _ in range(count)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, q, kv):
        for attention, mlp in self.layers:
            q = q + attention(q, kv)
            q = q + mlp(q)
        return self.norm(q)


class Upsampler(nn.Module):
    def __init__(self, dim):
        super().__init__()
        width = dim + 20
        # In the checkpoint, the guidance's Fourier features are the second member of a sequence.
        self.fourier_feat = nn.Sequential(nn.Identity(), Waves(5, 20))
        self.lr_pe = Waves(2, 5)
        self.first_conv = nn.Sequential(
            ChannelNorm(203), nn.Conv2d(203, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        )
        self.ca_transformer = Layers(width, dim)
        self.final_conv = nn.Sequential(nn.Conv2d(width, dim, 1), nn.LayerNorm(dim, eps=1e-6))

    def forward(self, features, image):
        low, high = image.amin((0, 2, 3), True), image.amax((0, 2, 3), True)
        colors = (image - low) / (high - low).clamp_min(1e-4) - 0.5
        sources = torch.cat([grid(image), colors], 1)
        x = self.first_conv(torch.cat([self.fourier_feat(sources), colors], 1))
        kv = torch.cat([features, self.lr_pe(grid(features))], 1).flatten(2).transpose(1, 2)
        x_tokens = self.ca_transformer(x.flatten(2).transpose(1, 2), kv)
        x = x_tokens.transpose(1, 2).reshape(x.shape)
        x = self.final_conv[0](x)
        return self.final_conv[1](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LoftUp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.channelnorm = ChannelNorm(dim)
        self.upsampler = Upsampler(dim)

    def forward(self, features, image):
        return self.upsampler(self.channelnorm(features), image)


def random_model(dim):
    torch.manual_seed(0)
    model = LoftUp(dim).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def timed(f):
    cpu, wall = time.process_time(), time.perf_counter()
    answer = f()
    return time.process_time() - cpu, time.perf_counter() - wall, answer


def ours(directory, precision):
    command = [
        ARGS.loftup, "bench", directory / "up.loftup", "--features", directory / "features.npy",
        "--guidance", directory / "image.npy", "--threads", str(ARGS.threads),
        "--repeat", "1", "--backend", "tract", "--cpu-precision", precision, "--json",
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def answer(directory, precision):
    out = directory / f"{precision}.npy"
    command = [
        ARGS.loftup, "run", directory / "up.loftup", "--features", directory / "features.npy",
        "--guidance", directory / "image.npy", "--backend", "tract", "--cpu-precision", precision, "--out", out,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.load(out)


def onnx_runtime(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = ARGS.threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def peers(model, whole, features, image):
    """Name, and a function that computes a frame. Those in 32 bits come first."""
    feed = {"features": features.numpy(), "image": image.numpy()}
    fp32 = onnx_runtime(whole)
    contenders = {
        f"PyTorch {torch.__version__}": lambda: model(features, image).numpy(),
        f"ONNX Runtime {onnxruntime.__version__}": lambda: fp32.run(None, feed)[0],
    }
    precisions = ARGS.precisions.split(",")
    if openvino:
        name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        for precision, hint in [("fp32", "f32"), ("bf16", "bf16")]:
            if precision in precisions:
                settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": ARGS.threads}
                compiled = openvino.Core().compile_model(str(whole), "CPU", settings)
                suffix = "" if precision == "fp32" else f" {precision}"
                contenders[name + suffix] = lambda c=compiled: c(feed)[0]
    if "int8" in precisions:
        int8 = whole.with_name("int8.onnx")
        quantize_dynamic(whole, int8, weight_type=QuantType.QInt8)
        session = onnx_runtime(int8)
        contenders[f"ONNX Runtime {onnxruntime.__version__} int8"] = lambda: session.run(None, feed)[0]
    return contenders


def main():
    if not ARGS.loftup.exists():
        sys.exit(f"{ARGS.loftup}: there is no such command; build it with cargo build -p loftup")
    model = random_model(ARGS.dim)
    rows = math.ceil(ARGS.side / 14)
    features = torch.randn(1, ARGS.dim, rows, rows)
    # 256 levels per color, as in a photograph.
    levels = torch.randint(0, 256, (1, 3, ARGS.side, ARGS.side)) / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    image = (levels - mean) / std

    with tempfile.TemporaryDirectory() as directory, torch.inference_mode():
        directory = Path(directory)
        torch.save(model.state_dict(), directory / "up.bin")
        np.save(directory / "features.npy", features.numpy())
        np.save(directory / "image.npy", image.numpy())
        run = [ARGS.loftup, "convert", "--upsampler-weights", directory / "up.bin"]
        subprocess.run([*run, "--out", directory / "up.loftup"], check=True, stdout=subprocess.DEVNULL)
        torch.onnx.export(
            model, (features, image), str(directory / "whole.onnx"), dynamo=False,
            input_names=["features", "image"], output_names=["upsampled"], opset_version=17,
        )
        contenders = peers(model, directory / "whole.onnx", features, image)
        loftup = {f"loftup {precision}": precision for precision in ARGS.precisions.split(",")}
        answers = {name: f() for name, f in contenders.items()}
        answers |= {name: answer(directory, precision) for name, precision in loftup.items()}
        expected = answers[next(iter(contenders))]
        errors = {
            name: float(np.sqrt(np.mean((a - expected) ** 2)) / expected.std()) for name, a in answers.items()
        }
        fp32 = [name for name in answers if not name.endswith(("int16", "fp16", "bf16", "int8"))]
        worst = max(float(np.abs(answers[name] - expected).max()) for name in fp32)
        # One unit in the last place of the scaled guidance moves a phase by 1e-3.
        if worst > 2e-2:
            sys.exit(f"the answers differ by {worst:.1e}: they do not compute the same")

        times = {name: ([], []) for name in answers}
        reports = []
        for _ in range(ARGS.rounds):
            for name, f in contenders.items():
                cpu, wall, _ = timed(f)
                times[name][0].append(cpu)
                times[name][1].append(wall)
            for i, (name, precision) in enumerate(loftup.items()):
                report = ours(directory, precision)
                if i == 0:
                    reports.append(report)
                times[name][0].append(report["frame"]["cpu_seconds"]["p50"])
                times[name][1].append(report["frame"]["wall_seconds"]["p50"])

    median = {name: [statistics.median(t) for t in both] for name, both in times.items()}
    parts = {
        part: statistics.median(r[part]["cpu_seconds"]["p50"] for r in reports)
        for part in ("region64", "points1", "points100", "points1000", "changed64")
    }
    peak = max(r["peak_rss_bytes"] for r in reports) / 1e6
    if ARGS.json:
        result = {"seconds": median, "errors": errors, "parts": parts, "peak_mb": peak, "worst": worst}
        print(json.dumps(result, indent=1))
        return
    first = next(iter(loftup))
    base_cpu, base_wall = median[next(name for name in median if name.startswith("ONNX Runtime"))]
    print(
        f"d = {ARGS.dim}, {ARGS.side}x{ARGS.side}, {ARGS.threads} thread(s), medians of {ARGS.rounds}; "
        f"answers in 32 bits agree to {worst:.1e}; peak memory of {first} {peak:.0f} MB\n"
    )
    print("| | CPU seconds | wall seconds | relative to ONNX Runtime (CPU) | (wall) | error |")
    print("|---|---|---|---|---|---|")
    for name, (c, w) in median.items():
        print(f"| {name} | {c:.2f} | {w:.2f} | {c / base_cpu:.2f} | {w / base_wall:.2f} | {errors[name]:.1e} |")
    print(f"\n| part of a frame of {first} | CPU seconds | fraction of the frame |")
    print("|---|---|---|")
    for part, seconds in parts.items():
        print(f"| {part} | {seconds:.4f} | {seconds / median[first][0]:.4f} |")


main()
