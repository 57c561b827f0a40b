"""An image in; a picture of its features and a class map out.

    pip install pillow
    python classes.py photo.jpg                                  # the built-in model, without classes
    python classes.py photo.jpg --bundle robot.loftup            # with classes, if it has a head
"""

import argparse
from pathlib import Path

import loftup
import numpy as np
from PIL import Image, ImageOps


def principal_components(features):
    """The first three principal components of the features as colors, uint8 [height, width, 3]."""
    pixels = features.reshape(-1, features.shape[-1])
    pixels = pixels - pixels.mean(0)
    sample = pixels[:: max(1, len(pixels) // 4096)]
    directions = np.linalg.svd(sample, full_matrices=False)[2][:3]
    components = pixels @ directions.T
    # Without the most extreme two percent, which would leave little contrast for the others.
    low, high = np.percentile(components, [1, 99], axis=0)
    levels = (components - low) / np.maximum(high - low, 1e-6)
    colors = (255 * levels.clip(0, 1)).round().astype(np.uint8)
    return colors.reshape(*features.shape[:2], 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--bundle", type=Path, help="[default: the built-in model]")
    parser.add_argument("--head", help="a head with classes [default: the only one]")
    parser.add_argument("--size", type=int, help="side of the output [default: the backbone's]")
    parser.add_argument("--out", type=Path, default=Path("."), help="a directory")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    bundle = args.bundle
    if bundle is None:
        bundle = args.out / "photos.loftup"
        if not bundle.exists():
            loftup.convert(bundle, builtin="photos", progress=lambda stage, *_: print(stage))
    perceptor = loftup.Perceptor.open(bundle)
    print(f"{perceptor.engine}, {perceptor.dim} channels")

    # Phones store photographs as the sensor saw them, with the orientation in EXIF.
    photo = ImageOps.exif_transpose(Image.open(args.image))
    frame = perceptor.encode(photo, size=args.size)

    picture = args.out / f"{args.image.stem}-features.png"
    Image.fromarray(principal_components(frame.features())).save(picture)
    print(picture)

    names = [name for name in perceptor.heads if perceptor.head(name).names]
    if not names and args.head is None:
        print("no head with classes in this bundle: make one with loftup.head_classes")
        return
    head = perceptor.head(args.head or names[0])
    classes = frame.classes(head)
    colors = np.random.default_rng(0).integers(40, 256, (256, 3), dtype=np.uint8)
    colors[loftup.NO_CLASS] = 0
    map = Image.fromarray(classes)
    map.putpalette(colors.tobytes())
    path = args.out / f"{args.image.stem}-classes.png"
    map.save(path)
    print(path)
    for value, count in zip(*np.unique(classes, return_counts=True)):
        name = "no class" if value == loftup.NO_CLASS else head.names[value]
        print(f"  {name}: {100 * count / classes.size:.1f} %")


if __name__ == "__main__":
    main()
