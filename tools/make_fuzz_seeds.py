#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets to tests/fuzz/seeds, from the test data of the project and a
few files of a kilobyte that are made here.

    pip install onnx pillow
    tools/make_fuzz_seeds.py
"""

import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "tests/fuzz/seeds"
CHECKPOINTS = ROOT / "models/import/tests/data"
RUNTIME = ROOT / "firmware/runtime/tests/data"


def write(target, name, data):
    directory = SEEDS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data.encode() if isinstance(data, str) else data)


def checkpoints():
    for name in ["plain.pth", "views_legacy.pt", "protocol4.pt", "nested.pth", "parallel.pth",
                 "complex.pt", "expanded.pt", "strided.pt", "two_models.pth", "unusual.pt"]:
        path = CHECKPOINTS / name
        if not zipfile.is_zipfile(path):
            continue
        with zipfile.ZipFile(path) as archive:
            entry = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            pickle = archive.read(entry)
        if len(pickle) <= 2048:
            write("pickle", path.stem, pickle)
    for name in ["legacy.pth", "legacy_protocol4.pth", "views_legacy.pt", "unusual_legacy.pt"]:
        write("torch_legacy", Path(name).stem, (CHECKPOINTS / name).read_bytes())
    for name in ["complex.pt", "deflated.pth", "no_root.pth", "whole_module.pt"]:
        write("torch_zip", Path(name).stem, (CHECKPOINTS / name).read_bytes())
    for name in ["plain", "float8", "types", "unusual"]:
        write("safetensors", name, (CHECKPOINTS / f"{name}.safetensors").read_bytes())
    write("safetensors", "head", head())


def head():
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                         "bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]}})
    header = header.ljust(-(-len(header) // 8) * 8).encode()
    data = struct.pack("<8f", *[0.5] * 6, 0.25, 0.25)
    return struct.pack("<Q", len(header)) + header + data


def arrays():
    for name in ["f2_fortran", "f4", "f8_fortran", "u1", "v2", "scalar", "empty", "record"]:
        write("npy", name, (RUNTIME / f"npy/{name}.npy").read_bytes())


def images():
    for name in ["progressive.jpg", "rgb_420.jpg", "gray.ppm", "palette.png", "rgb.webp", "bilevel.png"]:
        write("image", name.replace(".", "_"), (RUNTIME / "decode" / name).read_bytes())
    row = np.arange(24)
    pixels = np.stack([row * 10 % 256 + np.zeros((17, 1)), row[:, None][:17] * 9 + np.zeros((1, 24)),
                       (row + row[:17, None] * 3) % 256], axis=-1).astype(np.uint8)
    for name, mode, options in [
        ("restart", "RGB", {"quality": 80, "restart_marker_blocks": 2}),
        ("gray", "L", {"quality": 50, "optimize": True}),
        ("progressive_444", "RGB", {"quality": 90, "progressive": True, "subsampling": 0}),
        ("cmyk", "CMYK", {"quality": 30}),
    ]:
        out = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
        write("image", name, out.getvalue())


def onnx_model(nodes, inputs, outputs, constants, opset=17):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def graphs():
    constant = lambda name, values, kind=np.float32: numpy_helper.from_array(np.array(values, kind), name)
    image = [("x", TensorProto.FLOAT, [1, 3, "h", "w"])]
    convolution = onnx_model(
        [helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[1, 1]),
         helper.make_node("Relu", ["c"], ["r"]),
         helper.make_node("Constant", [], ["k"], value=constant("", [0, -1, 2], np.int64)),
         helper.make_node("Reshape", ["r", "k"], ["t"]),
         helper.make_node("MatMul", ["t", "m"], ["p"]),
         helper.make_node("Softmax", ["p"], ["y"], axis=-1)],
        image, [("y", TensorProto.FLOAT, [1, "n", 4])],
        [constant("w", np.ones((2, 3, 1, 1))), constant("b", [0, 1e-6]), constant("m", np.ones((2, 4)))])
    write("onnx", "convolution", convolution.SerializeToString())
    half = onnx_model(
        [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
         helper.make_node("Gemm", ["h", "w", "b"], ["g"], transB=1),
         helper.make_node("Cast", ["g"], ["y"], to=TensorProto.FLOAT)],
        [("x", TensorProto.FLOAT, [1, 3])], [("y", TensorProto.FLOAT, [1, 2])],
        [constant("w", np.ones((2, 3)), np.float16), constant("b", [1, 2], np.float16)])
    write("onnx", "half", half.SerializeToString())
    integers = onnx_model(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
         helper.make_node("DequantizeLinear", ["w", "ws"], ["e"], axis=1),
         helper.make_node("MatMul", ["d", "e"], ["y"])],
        [("x", TensorProto.FLOAT, [1, 3])], [("y", TensorProto.FLOAT, [1, 2])],
        [constant("s", 0.1), constant("z", 0, np.int8), constant("w", np.ones((3, 2)), np.int8),
         constant("ws", [0.1, 0.2])])
    write("onnx", "int8", integers.SerializeToString())
    external = onnx_model(
        [helper.make_node("Add", ["x", "w"], ["a"]),
         helper.make_node("If", ["k"], ["y"],
                          then_branch=helper.make_graph([helper.make_node("Identity", ["a"], ["i"])], "t", [],
                                                        [helper.make_tensor_value_info("i", 10, [1, 8])]),
                          else_branch=helper.make_graph([helper.make_node("Neg", ["a"], ["n"])], "e", [],
                                                        [helper.make_tensor_value_info("n", 10, [1, 8])]))],
        [("x", TensorProto.FLOAT16, [1, 8])], [("y", TensorProto.FLOAT16, [1, 8])],
        [constant("w", np.ones(8), np.float16), constant("k", True, bool)])
    weight = external.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in [("location", "model.data"), ("offset", "16"), ("length", "16")]:
        weight.external_data.add(key=key, value=value)
    write("onnx", "external", external.SerializeToString())
    doubles = onnx_model(
        [helper.make_node("Attention", ["x", "x", "x"], ["y", "k", "v"], q_num_heads=1, kv_num_heads=1)],
        [("x", TensorProto.DOUBLE, [1, 4, 8])], [("y", TensorProto.DOUBLE, [1, 4, 8])],
        [helper.make_tensor("u", TensorProto.DOUBLE, [2], [1.0, 2.0])], opset=23)
    write("onnx", "attention", doubles.SerializeToString())


def manifests():
    entry = lambda data: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    small = {
        "format": 2,
        "normalization": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "files": {"graph.onnx": entry(b"seven b")},
        "provenance": {"tool": "seed", "created": 0, "sources": []},
    }
    write("manifest", "small", json.dumps(small))
    heads = json.loads(json.dumps(small))
    heads["files"]["head-ground.safetensors"] = entry(head_as_written())
    heads["heads"] = {"ground": {"file": "head-ground.safetensors", "dim": 3,
                                 "kind": {"classes": {"names": ["ground", "other"]}}}}
    write("manifest", "head", json.dumps(heads))
    # The bundle that the harness uses for the node's configuration.
    full = json.loads(json.dumps(heads))
    digits = "0123456789abcdef" * 4
    loss = {"relative_error": 0.02, "cosine": 0.9998, "worst_cosine": 0.99, "outliers": 0.001}
    full["backbone"] = {
        "name": "dinov2", "dim": 3, "patch": 14, "size": {"width": 28, "height": 42}, "any_size": False,
        "input": "image", "output": "features", "layout": {"tokens": {"extra": 5}},
        "graphs": {"fp32": "graph.onnx", "fp16": "graph.onnx"},
        "architecture": {
            "family": "dinov2", "width": 3, "depth": 1, "registers": 4, "position_grid": 2,
            "heads": {"value": 1, "from": "command-line"}, "activation": {"value": "swiglu", "from": "default"},
            "positions": {"value": "timm", "from": "default"}, "normalization": "published-model"}}
    full["upsampler"] = {
        "dim": 3, "layers": 2, "heads": 4, "head_width": 8,
        "graphs": {"fp32": {"keys": "graph.onnx", "queries": "graph.onnx", "whole": "graph.onnx"}}}
    full["heads"]["short"] = {"file": "head-ground.safetensors", "dim": 3, "kind": {"descriptors": {"channels": 2}}}
    full["quantization"] = {"int8": {
        "tool": "seed", "calibration": {"images": 8, "tiles": 9, "fingerprint": digits}, "max_loss": 0.1,
        "loss": loss, "graphs": {"queries": loss}, "kept": ["conv1"],
        "head": {"name": "ground", "images": 3, "mean_iou_before": 0.5, "mean_iou_after": 0.4},
        "check": {"file": "graph.onnx", "as_written": 0.01, "widened": 0.02}}}
    full["references"] = {"file": "head-ground.safetensors", "tool": "seed",
                          "errors": {"fp16": {"upsampler": {"relative_error": 0.1, "cosine": 0.99}}}}
    full["provenance"]["training"] = {
        "tool": "seed", "stage": 2, "steps": 10, "seed": 1, "images": 3, "images_with_masks": 2,
        "data_fingerprint": digits, "weights_sha256": digits, "backbone_sha256": digits,
        "losses": {"total": 0.5}, "record_sha256": digits}
    write("manifest", "full", json.dumps(full))


def head_as_written():
    """The bytes that the harness writes (`Linear::to_bytes`)."""
    header = ('{"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
              '"bias":{"dtype":"F32","shape":[2],"data_offsets":[24,32]}}')
    header = header.ljust(-(-len(header) // 8) * 8).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<8f", *[0.5] * 6, 0.25, 0.25)


def configurations():
    model = '[model]\nbundle = "robot.loftup"\nhead = "ground"\nbackend = "tract"\nsize = [112, 84]\n'
    write("config", "scenes", model + """
[source]
kind = "scenes"
size = [224, 224]
rate_hz = 2

[pipeline]
deadline_ms = 500

[metrics]
listen = "127.0.0.1:9477"
""")
    write("config", "robot", model.replace("tract", "fallback") + """descriptors = "short"
threads = 2
color_range = [[0, 1], [-0.5, 0.5], [0, 2e1]]
backbone_every = 3
hold = 4

[tensorrt]
workspace_mib = 512

[source]
kind = "pipeline"
pipeline = "v4l2src ! jpegdec"
size = [640, 480]
timeout_ms = 500

[pipeline]
deadline_ms = 100
max_age_ms = 400
rate_hz = 12.5

[degrade]
misses = 3
step = [{ size = [56, 42] }, { regions_only = true, rate_hz = 1 }]

[thermal]
zones = ["/sys/class/thermal/thermal_zone0"]
hot_c = 80
critical_c = 95

[watchdog]
hang_ms = 2000

[[query]]
slot = 0
want = "classes"

[[query]]
slot = 1
want = "features-f16"
points = [[1, 2], [3, 4]]

[[query]]
slot = 2
want = "regions"
region = [0, 0, 50, 40]

[[sink]]
kind = "serial"
path = "/dev/ttyTHS1"
baud = 921600

[[sink]]
kind = "udp"
bind = "127.0.0.1:7000"
peer = "127.0.0.1:7001"

[[sink]]
kind = "mcap"
path = "run.mcap"
every = 5
max_mib = 64
""")
    write("config", "wrong", "[model]\nsize = [1,\n2, 3]\n[[sink]]\nkind = 'x'\ncafé = \"")


checkpoints()
arrays()
images()
graphs()
manifests()
configurations()
