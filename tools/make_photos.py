#!/usr/bin/env python3
"""Makes the photographs that the built-in upsampler is trained on, from the sources in
models/weights/photos/SOURCES.csv.

    git clone https://github.com/BuddiesOfBudgie/budgie-backgrounds sources/budgie-backgrounds
    git clone https://github.com/LukeSmithxyz/based.cooking sources/based.cooking
    apt-get download lomiri-wallpapers-16.04 lomiri-wallpapers-20.04      # Debian 12
    for package in lomiri-*.deb; do dpkg -x "$package" sources/lomiri-wallpapers; done
    python3 tools/make_photos.py sources photos                           # needs Pillow
    loftup train train.toml                                             # a copy of models/weights/photos/train.toml

Where the column `use` says "crops", a photograph gives several squares of 480x480: of the photograph at 480
and at 960 pixels on its short side. The others are kept whole, with at most 640 pixels on the long side.
"""
import argparse
import csv
import os

from PIL import Image

SIDE = 480
SMALL = 640


def crops(image):
    """Squares that cover the image, at two scales."""
    for rows in 1, 2:
        scale = rows * SIDE / min(image.size)
        scaled = image.resize([round(side * scale) for side in image.size], Image.LANCZOS)
        columns = max(rows, round(rows * image.width / image.height))
        for row in range(rows):
            for column in range(columns):
                x = column * (scaled.width - SIDE) // max(columns - 1, 1)
                y = row * (scaled.height - SIDE) // max(rows - 1, 1)
                yield scaled.crop((x, y, x + SIDE, y + SIDE))


def find(folder, repository, path):
    """A file of a checkout or of an unpacked package."""
    whole = os.path.join(folder, repository, path)
    if os.path.exists(whole):
        return whole
    for at, _, names in os.walk(os.path.join(folder, repository)):
        if os.path.join(at, os.path.basename(path)).endswith("/" + path) and os.path.basename(path) in names:
            return os.path.join(at, os.path.basename(path))
    raise SystemExit(f"{whole}: not found; get it as described in the first lines of this program")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", help="directory with the checkouts and unpacked packages")
    parser.add_argument("out", help="output directory")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    listed = os.path.join(os.path.dirname(__file__), "../models/weights/photos/SOURCES.csv")
    count = 0
    with open(listed, newline="") as file:
        for source in csv.DictReader(file):
            path = find(arguments.sources, source["repository"].split("@")[0], source["path"])
            image = Image.open(path).convert("RGB")
            if source["use"] == "crops":
                images = {f"{source['name']}-{i}": crop for i, crop in enumerate(crops(image))}
            else:
                image.thumbnail((SMALL, SMALL), Image.LANCZOS)
                images = {source["name"]: image}
            for name, image in images.items():
                image.save(os.path.join(arguments.out, f"{name}.jpg"), quality=92)
            count += len(images)
    print(f"{arguments.out}: {count} images")


main()
