"""Outputs of a frame, and arguments that are refused."""

import loftup
import numpy as np
import pytest


def test_properties(perceptor, bundle, frame):
    height, width = perceptor.size
    assert perceptor.grid == (height // perceptor.patch, width // perceptor.patch)
    assert perceptor.kind == "loftup" and perceptor.heads == []
    assert perceptor.precision == "fp32" and perceptor.threads == 2
    assert perceptor.path == bundle and "tract" in perceptor.engine
    assert perceptor.health["degraded"] is None
    assert perceptor.manifest["upsampler"]["dim"] == perceptor.dim == frame.dim
    assert frame.size == (56, 84)
    assert repr(frame) == f"Frame(size=(56, 84), dim={frame.dim})"
    perceptor.compile((56, 84))


def test_arrays_own_their_memory(perceptor, image):
    frame = perceptor.encode(image, size=(20, 30))
    outputs = [frame.features(), frame.region(1, 2, 3, 4), frame.points([[5, 6]])]
    copies = [output.copy() for output in outputs]
    del frame
    for output, copy in zip(outputs, copies):
        assert output.dtype == np.float32 and output.flags.c_contiguous and output.flags.writeable
        np.testing.assert_array_equal(output, copy)
        output += 1


def test_dlpack(frame):
    features = frame.region(0, 0, 5, 7)
    shared = np.from_dlpack(features)
    assert np.shares_memory(shared, features)


def test_torch(frame):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    features = frame.region(0, 0, 5, 7)
    shared = torch.from_dlpack(features)
    assert shared.data_ptr() == features.ctypes.data and shared.shape == (7, 5, frame.dim)


def test_region_and_points_match_the_frame(frame):
    whole = frame.features()
    # Other tiles, other rounding: the tolerance of `loftup verify`.
    close = {"rtol": 0, "atol": 2e-3 * max(1, float(np.sqrt(np.mean(whole**2))))}
    np.testing.assert_allclose(frame.region(11, 7, 40, 30), whole[7:37, 11:51], **close)
    points = np.array([[0, 0], [83, 55], [40, 20]])
    np.testing.assert_allclose(frame.points(points), whole[points[:, 1], points[:, 0]], **close)
    assert frame.points(np.zeros((0, 2), int)).shape == (0, frame.dim)


def test_features_from_elsewhere(perceptor, image):
    features = perceptor.backbone_features(image)
    assert features.shape == (*perceptor.grid, perceptor.dim)
    for upsampler in ["loftup", "jbu"]:
        arguments = {"size": perceptor.size, "upsampler": upsampler}
        frame = perceptor.encode_features(features, image, **arguments)
        expected = perceptor(image, upsampler=upsampler, region=(3, 4, 20, 10))
        np.testing.assert_array_equal(frame.region(3, 4, 20, 10), expected)
    assert perceptor.encode_features(features, image).size == image.shape[:2]


def test_custom_head(perceptor, frame):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(3, perceptor.dim)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    head = perceptor.custom_head(weight, bias, names=["a", "b", "c"])
    assert (head.kind, head.names, head.outputs) == ("classes", ["a", "b", "c"], 3)
    features = frame.features().astype(np.float64)
    scores = features @ weight.T.astype(np.float64) + bias
    # Rounding of a product of `dim` terms in 32 bits.
    bound = 1e-5 * np.abs(features) @ np.abs(weight.T) + 1e-5
    found = frame.features(head=head)
    assert (np.abs(found - scores) <= bound).all()
    np.testing.assert_array_equal(frame.classes(head), found.argmax(-1))
    # Strides of weights do not matter.
    other = perceptor.custom_head(np.asfortranarray(weight), bias)
    assert other.kind == "descriptors" and other.names is None
    np.testing.assert_array_equal(frame.features(head=other), found)


def test_only_head(with_heads, image):
    frame = loftup.Perceptor.open(with_heads, engine="cpu").encode(image, size=28)
    np.testing.assert_array_equal(frame.classes(), frame.classes("classes"))
    with pytest.raises(ValueError, match="no head with depth"):
        frame.depth()
    with pytest.raises(ValueError, match="no classes"):
        frame.classes("pca")


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda p, f: f.region(80, 0, 5, 1), ValueError, "not within the output"),
        (lambda p, f: f.region(0, 0, 0, 1), ValueError, "empty"),
        (lambda p, f: f.region(-1, 0, 1, 1), OverflowError, "negative"),
        (lambda p, f: f.points([[84, 0]]), ValueError, "outside the output"),
        (lambda p, f: f.points([[0, -1]]), ValueError, "negative"),
        (lambda p, f: f.points([[0.5, 1]]), TypeError, "whole numbers"),
        (lambda p, f: f.points([1, 2]), ValueError, "shape"),
        (lambda p, f: f.features(head="no"), ValueError, "no"),
        (lambda p, f: f.features(head=3), TypeError, "head"),
        (lambda p, f: p(np.zeros((8, 8, 3), np.uint8), size=0), ValueError, "each side"),
        (lambda p, f: p(np.zeros((8, 8, 3), np.uint8), size="224"), TypeError, "height, width"),
        (lambda p, f: p(np.zeros((8, 8, 3), np.uint8), range=3), TypeError, "low, high"),
        (lambda p, f: p(np.zeros((8, 8, 3), np.uint8), range="no"), ValueError, "range"),
        (lambda p, f: p(np.zeros((8, 8, 3), np.uint8), range=(9, 3)), ValueError, "range"),
        (lambda p, f: p(np.zeros((8, 8, 3), np.uint8), upsampler="no"), ValueError, "jbu"),
        (lambda p, f: p.custom_head(np.zeros((2, 3), np.float32)), ValueError, "channels"),
        (lambda p, f: loftup.Perceptor.open("no.loftup"), loftup.LoftupError, "no.loftup"),
        (lambda p, f: loftup.Perceptor.open(p.path, engine="gpu"), ValueError, "cpu"),
        (lambda p, f: loftup.Perceptor.open(p.path, precision="int8"), ValueError, "fp32"),
        (lambda p, f: loftup.Perceptor.open(p.path, threads=0), ValueError, "threads"),
        (lambda p, f: loftup.Perceptor(), TypeError, "Perceptor"),
    ],
)
def test_wrong_arguments(perceptor, frame, call, error, message):
    with pytest.raises(error, match=message) as raised:
        call(perceptor, frame)
    assert "\n" not in str(raised.value)


def test_not_finite_features(perceptor, image):
    features = np.zeros((4, 4, perceptor.dim), np.float32)
    features[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        perceptor.encode_features(features, image)
    with pytest.raises(ValueError, match="shape"):
        perceptor.encode_features(features[..., :-1], image)


def test_error_is_a_runtime_error():
    assert issubclass(loftup.LoftupError, RuntimeError)
