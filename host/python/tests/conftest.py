"""What the tests share: a bundle of the small built-in model, and an image."""

import os
import shutil
import subprocess

import loftup
import numpy as np
import pytest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The built-in model that was trained on generated scenes."""
    path = tmp_path_factory.mktemp("bundle") / "scenes.loftup"
    loftup.convert(path, builtin="scenes")
    return path


@pytest.fixture(scope="session")
def perceptor(bundle):
    return loftup.Perceptor.open(bundle, engine="cpu", threads=2)


@pytest.fixture(scope="session")
def image():
    """Blobs of color with noise, 50 x 70."""
    y, x = np.mgrid[:50, :70]
    waves = [np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)]
    noise = np.random.default_rng(0).normal(0, 6, (50, 70, 3))
    return (128 + 90 * np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def frame(perceptor, image):
    return perceptor.encode(image, size=(56, 84))


@pytest.fixture(scope="session")
def labeled(tmp_path_factory, image):
    """A data set of three images whose left half is class 0 and whose right half is class 1."""
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("labeled")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[:, image.shape[1] // 2 :] = 1
    for i in range(3):
        shifted = image.copy()
        shifted[labels == 1] = 255 - shifted[labels == 1]
        pillow.fromarray(np.roll(shifted, i, 0)).save(folder / f"images/{i}.png")
        pillow.fromarray(labels).save(folder / f"labels/{i}.png")
    (folder / "classes.txt").write_text("left\nright\n")
    return folder


@pytest.fixture(scope="session")
def with_heads(bundle, labeled, tmp_path_factory):
    """The bundle with the heads `classes` and `pca`."""
    folder = tmp_path_factory.mktemp("heads")
    loftup.head_classes(bundle, labeled, folder / "classes.loftup", size=56, engine="cpu")
    both = folder / "both.loftup"
    images = labeled / "images"
    loftup.head_pca(folder / "classes.loftup", images, both, channels=4, size=56, engine="cpu")
    return both


@pytest.fixture(scope="session")
def command():
    """Runs the command `loftup` of the same version: $LOFTUP, or the one in $PATH."""
    program = os.environ.get("LOFTUP") or shutil.which("loftup")
    if program is None:
        pytest.skip("no command loftup: set LOFTUP or PATH")

    def run(*arguments):
        arguments = [program, *map(str, arguments)]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

    return run
