"""Conversion, quantization, verification, and heads."""

import shutil

import loftup
import numpy as np
import pytest


def test_convert(bundle, tmp_path):
    stages = []
    out = tmp_path / "other.loftup"
    converted = loftup.convert(
        out, builtin="scenes", progress=lambda stage, done, total: stages.append(stage)
    )
    assert "verifying the bundle" in stages
    assert converted["manifest"] == loftup.Perceptor.open(out, engine="cpu").manifest
    assert all(check["passed"] for check in converted["checks"])
    with pytest.raises(loftup.LoftupError, match="other.loftup"):
        loftup.convert(out, builtin="scenes")


def test_an_exception_of_progress_ends_the_work(tmp_path, bundle, labeled):
    class Enough(Exception):
        pass

    def enough(stage, done, total):
        raise Enough(stage)

    out = tmp_path / "out.loftup"
    with pytest.raises(Enough, match="backbone"):
        loftup.convert(out, builtin="scenes", progress=enough)
    with pytest.raises(Enough, match="sampling"):
        loftup.head_classes(bundle, labeled, out, progress=enough, engine="cpu")
    with pytest.raises(Enough):
        loftup.quantize(
            bundle, out, precision="fp16", images=labeled / "images", progress=enough
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"backbone": "dinov2-s14"},
        {"backbone_onnx": "a.onnx"},
        {"backbone_onnx": "a.onnx", "patch": 16, "heads": 3},
        {"builtin": "none"},
        {"builtin": "scenes", "size": 224},
        {"backbone": "dinov2-s14", "backbone_weights": "a.pth", "activation": "relu"},
        {"backbone_onnx": "a.onnx", "patch": 16, "std": (0.5, 0, 0.5)},
        {"backbone_onnx": "a.onnx", "patch": 16, "layout": "no"},
    ],
)
def test_wrong_arguments(tmp_path, arguments):
    with pytest.raises(ValueError):
        loftup.convert(tmp_path / "out.loftup", **arguments)


def test_failures(tmp_path):
    out = tmp_path / "out.loftup"
    with pytest.raises(loftup.LoftupError, match="nothing to convert"):
        loftup.convert(out)
    with pytest.raises(loftup.LoftupError, match="no.safetensors"):
        loftup.convert(out, upsampler_weights=tmp_path / "no.safetensors")
    assert not out.exists()


def test_verify(bundle, tmp_path):
    checks = loftup.verify(bundle, engine="cpu")
    assert checks and all(check["passed"] for check in checks)
    damaged = tmp_path / "damaged.loftup"
    shutil.copytree(bundle, damaged)
    graph = next(damaged.glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(loftup.LoftupError, match=graph.name):
        loftup.verify(damaged)


def test_quantize(bundle, labeled, image, tmp_path):
    out = tmp_path / "half.loftup"
    report = loftup.quantize(
        bundle, out, precision="fp16-weights", images=labeled / "images", limit=1, tiles=1
    )
    assert report["precision"] == "fp16-weights"
    small = loftup.Perceptor.open(out, engine="cpu")
    assert small.precision == "fp16-weights"
    with pytest.raises(ValueError, match="precision"):
        loftup.quantize(bundle, out, precision="int4", images=labeled / "images")


def test_heads(bundle, labeled, image, tmp_path):
    out = tmp_path / "classes.loftup"
    made = loftup.head_classes(bundle, labeled, out, size=56, name="halves", engine="cpu")
    assert made["names"] == ["left", "right"] and made["images"] == 3 and made["fit"] > 0.9
    perceptor = loftup.Perceptor.open(out, engine="cpu")
    assert perceptor.heads == ["halves"] and perceptor.head("halves").names == made["names"]
    classes = perceptor.encode(labeled / "images/0.png", size=56).classes()
    half = np.arange(56) >= 28
    assert (classes == half).mean() > 0.9
    with pytest.raises(loftup.LoftupError, match="already exists"):
        loftup.head_pca(bundle, labeled / "images", out)
