"""Outputs have the bits of those of the command `loftup run`."""

import loftup
import numpy as np
import pytest

SIZE = (56, 84)


@pytest.fixture
def run(command, bundle, image, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(image).save(tmp_path / "image.png")

    def run(*arguments, bundle=bundle, size=("--size", "84x56"), out="out.npy"):
        out = tmp_path / out
        source = ["--image", tmp_path / "image.png", "--backend", "tract"]
        command("run", bundle, *source, *size, *arguments, "--out", out)
        return np.load(out)

    run.folder = tmp_path
    return run


def rows(output):
    """`[1, d, H, W]` as `[H, W, d]`."""
    return output[0].transpose(1, 2, 0)


def test_frame(run, perceptor, image):
    np.testing.assert_array_equal(perceptor(image, size=SIZE), rows(run()))


def test_default_size(run, perceptor, image):
    output = perceptor(image)
    assert output.shape == (*perceptor.size, perceptor.dim)
    np.testing.assert_array_equal(output, rows(run(size=())))


def test_file(run, perceptor):
    expected = rows(run())
    np.testing.assert_array_equal(perceptor(run.folder / "image.png", size=SIZE), expected)
    np.testing.assert_array_equal(perceptor(str(run.folder / "image.png"), size=SIZE), expected)


def test_region(run, perceptor, frame, image):
    expected = rows(run("--region", "17,9,33,21"))
    np.testing.assert_array_equal(frame.region(17, 9, 33, 21), expected)
    np.testing.assert_array_equal(perceptor(image, size=SIZE, region=(17, 9, 33, 21)), expected)


def test_points(run, perceptor, frame, image):
    points = [[0, 0], [83, 55], [17, 9]]
    listed = run.folder / "points.csv"
    listed.write_text("".join(f"{x},{y}\n" for x, y in points))
    expected = run("--points", listed)
    np.testing.assert_array_equal(frame.points(points), expected)
    np.testing.assert_array_equal(perceptor(image, size=SIZE, points=np.array(points)), expected)


@pytest.mark.parametrize("given, range", [("full", "full"), ("10,200", (10, 200))])
def test_color_range(run, perceptor, image, given, range):
    expected = rows(run("--range", given))
    np.testing.assert_array_equal(perceptor(image, size=SIZE, range=range), expected)


def test_jbu(run, perceptor, image):
    output = perceptor(image, size=SIZE, upsampler="jbu")
    np.testing.assert_array_equal(output, rows(run("--upsampler", "jbu")))


def test_heads(run, with_heads, image):
    perceptor = loftup.Perceptor.open(with_heads, engine="cpu")
    frame = perceptor.encode(image, size=SIZE)
    classes = frame.classes("classes")
    assert classes.dtype == np.uint8 and classes.shape == SIZE
    np.testing.assert_array_equal(classes, run("--head", "classes", bundle=with_heads))
    np.testing.assert_array_equal(
        frame.features(head="pca"), rows(run("--head", "pca", bundle=with_heads))
    )
