#!/usr/bin/env python3
"""Writes the small ONNX graphs that the tests of loftup-tensorrt build engines from.

    python3 tools/make_tensorrt_fixtures.py firmware/tensorrt/tests/data

Needs numpy and onnx. Each graph is a small version of parts of the exported upsampler
made of: convolution, matrix product, softmax, sine and cosine, and an error
function. The weights are fixed by a seed, so the files do not change between
runs of the same onnx version.

small_fp32.onnx          fixed shapes, FP32
small_fp16.onnx          the same with FP16 weights, activations, inputs and
                         outputs, FP32 inside the Fourier part
small_dynamic.onnx       small_fp32 with batch, height and width not fixed
wide.onnx                a convolution whose scratch memory is over 64 KiB
unknown_operator.onnx    valid, but with an operator that no parser knows
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 8


def graph(kind, dynamic):
    rng = np.random.default_rng(7)
    storage = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    initial = []

    def constant(name, value, dtype=None):
        value = np.asarray(value)
        initial.append(numpy_helper.from_array(value.astype(dtype or storage), name))
        return name

    def weight(name, *shape):
        return constant(name, rng.standard_normal(shape) * 0.3)

    batch, height, width = ("batch", "height", "width") if dynamic else (1, 6, 10)
    nodes = [
        helper.make_node("Conv", ["image", weight("conv.w", CHANNELS, 3, 3, 3), weight("conv.b", CHANNELS)],
                         ["conv"], "conv", pads=[1, 1, 1, 1]),
        # GELU as the exporter writes it.
        helper.make_node("Mul", ["conv", constant("inv_sqrt2", 0.5**0.5)], ["gelu.x"], "gelu_scale"),
        helper.make_node("Erf", ["gelu.x"], ["gelu.erf"], "gelu_erf"),
        helper.make_node("Add", ["gelu.erf", constant("one", 1.0)], ["gelu.one"], "gelu_one"),
        helper.make_node("Mul", ["conv", "gelu.one"], ["gelu.twice"], "gelu_mul"),
        helper.make_node("Mul", ["gelu.twice", constant("half", 0.5)], ["gelu"], "gelu_half"),
        # Sine and cosine features, always FP32.
        helper.make_node("Cast", ["gelu"], ["phase"], "phase", to=TensorProto.FLOAT),
        helper.make_node("Sin", ["phase"], ["sin"], "sin"),
        helper.make_node("Cos", ["phase"], ["cos"], "cos"),
        helper.make_node("Concat", ["sin", "cos"], ["fourier.f32"], "fourier", axis=1),
        helper.make_node("Cast", ["fourier.f32"], ["fourier"], "fourier_cast", to=kind),
        # Attention of every pixel over the keys.
        helper.make_node("Reshape", ["fourier", constant("flat", [0, 2 * CHANNELS, -1], np.int64)],
                         ["columns"], "columns"),
        helper.make_node("Transpose", ["columns"], ["queries"], "queries", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", weight("keys", 2 * CHANNELS, 5)], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["attention"], "attention", axis=-1),
        helper.make_node("MatMul", ["attention", weight("values", 5, 4)], ["features"], "values"),
    ]
    pixels = "height*width" if dynamic else 60
    return helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("image", kind, [batch, 3, height, width])],
        [helper.make_tensor_value_info("features", kind, [batch, pixels, 4])],
        initial)


def wide():
    """A large matrix product over a large image: needs scratch memory."""
    rng = np.random.default_rng(8)
    weights = numpy_helper.from_array(rng.standard_normal((64, 3, 1, 1)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], "lift"),
        helper.make_node("Softmax", ["a"], ["b"], "first_softmax", axis=1),
        helper.make_node("Reshape", ["b", "flat"], ["c"], "rows"),
        helper.make_node("Transpose", ["c"], ["d"], "turned", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["c", "d"], ["e"], "gram"),
        helper.make_node("Softmax", ["e"], ["f"], "second_softmax", axis=-1),
        helper.make_node("MatMul", ["f", "c"], ["features"], "mixed"),
    ]
    flat = numpy_helper.from_array(np.array([1, 64, -1], np.int64), "flat")
    return helper.make_graph(
        nodes, "wide",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 128, 128])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 64, 128 * 128])],
        [weights, flat])


def unknown():
    return helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "fine"),
         helper.make_node("NoSuchOperator", ["y"], ["z"], "culprit", domain="example.org")],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4])])


def main():
    directory = Path(sys.argv[1])
    opset = [helper.make_opsetid("", 17)]
    models = {
        "small_fp32": graph(TensorProto.FLOAT, False),
        "small_fp16": graph(TensorProto.FLOAT16, False),
        "small_dynamic": graph(TensorProto.FLOAT, True),
        "wide": wide(),
    }
    for name, content in models.items():
        model = helper.make_model(content, opset_imports=opset, ir_version=8, producer_name="loftup-edge")
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, directory / f"{name}.onnx")
    model = helper.make_model(unknown(), opset_imports=opset + [helper.make_opsetid("example.org", 1)],
                              ir_version=8, producer_name="loftup-edge")
    onnx.save(model, directory / "unknown_operator.onnx")
    for path in sorted(directory.glob("*.onnx")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
