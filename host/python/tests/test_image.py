"""Images in all their forms."""

import loftup
import numpy as np
import pytest

POINTS = [[3, 4], [60, 41]]


def spaced(array, step):
    """The same values, with `step` bytes from one to the next along each axis."""
    wide = np.zeros([n * step for n in array.shape], np.uint8)
    view = wide[tuple(slice(None, None, step) for _ in array.shape)]
    view[...] = array
    return view


VIEWS = {
    "packed": lambda a: a.copy(),
    "read-only": lambda a: np.frombuffer(a.tobytes(), np.uint8).reshape(a.shape),
    "Fortran": np.asfortranarray,
    "rows apart": lambda a: np.concatenate([a, a], 1)[:, : a.shape[1]],
    "every other byte": lambda a: spaced(a, 2),
    "planes": lambda a: a.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    "upside down": lambda a: a[::-1].copy()[::-1],
    "mirrored": lambda a: a[:, ::-1].copy()[:, ::-1],
    "channels reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "all reversed": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
}


@pytest.fixture(scope="module")
def points(perceptor):
    def points(image, **arguments):
        return perceptor(image, size=(56, 84), points=POINTS, **arguments)

    return points


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("shape", [(50, 70), (1, 70), (50, 1), (1, 1), (49, 33)])
def test_strides(points, image, view, shape):
    image = np.ascontiguousarray(image[: shape[0], : shape[1]])
    np.testing.assert_array_equal(points(view(image)), points(image))


def test_formats(points, image):
    expected = points(image)
    alpha = np.full((*image.shape[:2], 1), 77, np.uint8)
    gray = image[..., 0]
    pairs = [
        ("rgb", image, expected),
        ("bgr", image[..., ::-1], expected),
        ("rgba", np.concatenate([image, alpha], -1), expected),
        ("bgra", np.concatenate([image[..., ::-1], alpha], -1), expected),
        ("gray", gray, points(np.stack([gray] * 3, -1))),
        ("gray", gray[..., None], points(np.stack([gray] * 3, -1))),
    ]
    for name, array, expected in pairs:
        np.testing.assert_array_equal(points(array, format=name), expected, err_msg=name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_pillow(points, image, mode):
    pillow = pytest.importorskip("PIL.Image")
    converted = pillow.fromarray(image).convert(mode)
    expected = points(np.asarray(converted.convert("RGB")))
    np.testing.assert_array_equal(points(converted), expected)


def test_pillow_without_8_bits(perceptor):
    pillow = pytest.importorskip("PIL.Image")
    for mode in ["I;16", "I", "F"]:
        with pytest.raises(ValueError, match="not of 8 bits"):
            perceptor.encode(pillow.new(mode, (8, 8)))


def test_array_interface(points, image):
    class Camera:
        __array_interface__ = image.__array_interface__

    np.testing.assert_array_equal(points(Camera()), points(image))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.zeros((8, 8, 3), np.float32), "dtype float32: expected uint8"),
        (np.zeros((8, 8, 3), np.int8), "dtype int8: expected uint8"),
        (np.zeros((8, 8, 3), bool), "dtype bool: expected uint8"),
        (None, "expected uint8"),
        (object(), "type object"),
    ],
)
def test_wrong_dtypes(perceptor, wrong, message):
    with pytest.raises(TypeError, match=message):
        perceptor.encode(wrong)


@pytest.mark.parametrize(
    "shape, format",
    [
        ((8, 8), "rgb"),
        ((3, 8, 8), "rgb"),
        ((8, 8, 4), "rgb"),
        ((8, 8, 3), "rgba"),
        ((8, 8, 3), "gray"),
        ((1, 8, 8, 3), "rgb"),
        ((8,), "gray"),
        ((0, 8, 3), "rgb"),
        ((8, 0, 3), "rgb"),
        ((8, 8, 3), "yuv"),
    ],
)
def test_wrong_shapes(perceptor, shape, format):
    with pytest.raises(ValueError, match="shape|format|size"):
        perceptor.encode(np.zeros(shape, np.uint8), format=format)


def test_format_is_for_arrays(perceptor):
    with pytest.raises(ValueError, match="format is for arrays"):
        perceptor.encode("photo.jpg", format="bgr")


def test_missing_file(perceptor, tmp_path):
    with pytest.raises(loftup.LoftupError, match="no.png"):
        perceptor.encode(tmp_path / "no.png")
