"""Makes the fixtures of firmware/runtime/tests/image.rs with Pillow, torch and torchvision.

    python tools/make_resize_fixtures.py

Needs Pillow before 13, which scales across first and down second, except for images over a
hundred times as high as wide, of which there are none here. (Since 13 the order
depends on the sizes, and up to a sixth of the values differ by one level.)

Writes into firmware/runtime/tests/data/:

resize.txt          source size, size asked for, SHA-256 of Pillow's bytes, one case per line.
                    The source pixels are a formula (`noise`), here and in the test.
resize_*.rgb        the bytes themselves for a few small cases, to help find errors
normalize.npy       float32 [3 kinds, 3 channels, 256 levels], from torchvision
decode/*            small images of many kinds, each with PIL's convert("RGB") as .rgb
"""

import hashlib
import io
import pathlib

import numpy as np
import PIL
import torch
from PIL import Image
from torchvision.transforms import functional as F

DATA = pathlib.Path(__file__).parent.parent / "firmware/runtime/tests/data"

SIZES = [
    ((37, 23), (224, 224)),
    ((480, 360), (224, 224)),
    ((480, 360), (298, 224)),
    ((480, 360), (448, 448)),
    ((960, 720), (597, 448)),
    ((1920, 1080), (448, 448)),
    ((224, 224), (224, 224)),
    ((224, 224), (448, 448)),
    ((224, 100), (224, 224)),
    ((100, 224), (224, 224)),
    ((225, 223), (224, 224)),
    ((223, 225), (224, 224)),
    ((1, 1), (7, 5)),
    ((1, 1), (1, 1)),
    ((1, 97), (13, 31)),
    ((97, 1), (31, 13)),
    ((1, 97), (1, 31)),
    ((640, 480), (1, 1)),
    ((640, 480), (1, 480)),
    ((640, 480), (640, 1)),
    ((2, 2), (3, 3)),
    ((3, 3), (2, 2)),
    ((5, 3), (517, 311)),
    ((511, 333), (17, 13)),
    ((4001, 3), (7, 2)),
    ((41, 4001), (2, 7)),
    ((518, 518), (37, 37)),
    ((321, 123), (322, 122)),
]

# Cases whose bytes are committed as well.
SMALL = {((37, 23), (61, 19)), ((97, 61), (13, 7)), ((1, 9), (5, 4))}


def noise(width, height):
    """The pixels of the test images: a hashed counter, combined with smooth ramps."""
    x = np.arange(width, dtype=np.uint32)[None, :, None]
    y = np.arange(height, dtype=np.uint32)[:, None, None]
    c = np.arange(3, dtype=np.uint32)[None, None, :]
    mixed = x * np.uint32(2654435761) + y * np.uint32(2246822519) + c * np.uint32(3266489917)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(2246822519)
    mixed ^= mixed >> np.uint32(13)
    ramp = (x * np.uint32(3) + y * np.uint32(5) + c * np.uint32(7)) & np.uint32(255)
    rough = mixed >> np.uint32(24)
    # Rough above the diagonal of 16 x 16 blocks, smooth below it: both extremes of frequency.
    take_rough = ((x >> np.uint32(4)) + (y >> np.uint32(4))) % np.uint32(2) == 0
    return np.where(take_rough, rough, ramp).astype(np.uint8)


def resize():
    lines = []
    for source, size in SIZES + sorted(SMALL):
        out = Image.fromarray(noise(*source)).resize(size, Image.BILINEAR)
        torchvision = F.resize(Image.fromarray(noise(*source)), size[::-1])
        data = np.asarray(out).tobytes()
        assert data == np.asarray(torchvision).tobytes()
        digest = hashlib.sha256(data).hexdigest()
        lines.append("{} {} {} {} {}\n".format(*source, *size, digest))
        if (source, size) in SMALL:
            (DATA / "resize_{}x{}_{}x{}.rgb".format(*source, *size)).write_bytes(data)
    (DATA / "resize.txt").write_text("".join(lines))


def normalize():
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    kinds = [
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ]
    planes = [F.normalize(F.to_tensor(Image.fromarray(levels)), *kind) for kind in kinds]
    table = torch.stack(planes)[:, :, 0].numpy()
    assert table.shape == (3, 3, 256) and table.dtype == np.float32
    np.save(DATA / "normalize.npy", np.ascontiguousarray(table))


def decode():
    folder = DATA / "decode"
    folder.mkdir(exist_ok=True)
    rgb = noise(19, 13)
    gray = rgb[..., 0]
    alpha = noise(19, 13)[::-1, :, 1]
    palette = Image.fromarray(rgb).quantize(16)
    translucent = palette.copy()
    translucent.info["transparency"] = bytes(range(0, 256, 16))

    def put(name, image, expected=None, **options):
        stream = io.BytesIO()
        suffix = name.rpartition(".")[2]
        image.save(stream, {"tif": "tiff", "jpg": "jpeg"}.get(suffix, suffix), **options)
        if expected is None:
            expected = np.asarray(Image.open(stream).convert("RGB"))
        (folder / name).write_bytes(stream.getvalue())
        (folder / (name + ".rgb")).write_bytes(expected.tobytes())

    color = Image.fromarray(rgb)
    put("rgb.png", color)
    put("rgb.bmp", color)
    put("rgb.ppm", color)
    put("rgb.tif", color, compression="tiff_lzw")
    put("rgb.webp", color, lossless=True)
    put("gray.png", Image.fromarray(gray))
    put("gray.ppm", Image.fromarray(gray))
    put("bilevel.png", Image.fromarray(gray > 128))
    put("gray_alpha.png", Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)]))
    put("rgba.png", Image.merge("RGBA", [*color.split(), Image.fromarray(alpha)]))
    put("palette.png", palette)
    put("palette_transparent.png", translucent)
    # The upper eight bits; Pillow would clip to 255.
    deep = gray.astype(np.uint16) * 256 + alpha
    upper = np.repeat(gray[..., None], 3, axis=2)
    put("gray16.png", Image.fromarray(deep), upper)
    put("gray16.tif", Image.fromarray(deep), upper)
    # Smooth, so that differences between decoders in chroma upsampling are small.
    ramps = np.stack(np.broadcast_arrays(
        np.arange(32)[None, :] * 7, np.arange(24)[:, None] * 9, np.arange(32)[None, :] * 3 + 60,
    ), axis=2).astype(np.uint8)
    put("rgb_444.jpg", Image.fromarray(ramps), quality=92, subsampling=0)
    put("rgb_420.jpg", Image.fromarray(ramps), quality=92, subsampling=2)
    put("progressive.jpg", Image.fromarray(ramps), quality=92, progressive=True)
    # With a thumbnail, whose end marker precedes the image data.
    thumbnail = io.BytesIO()
    Image.fromarray(ramps).resize((8, 6)).save(thumbnail, "jpeg")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    exif = rotated.tobytes() + thumbnail.getvalue()
    put("rotated.jpg", Image.fromarray(ramps), quality=92, exif=exif)
    put("float.tif", Image.fromarray(rgb[..., 0].astype(np.float32)))
    (folder / "float.tif.rgb").unlink()


if __name__ == "__main__":
    assert int(PIL.__version__.split(".")[0]) < 13, "pip install 'pillow<13'"
    DATA.mkdir(exist_ok=True)
    resize()
    normalize()
    decode()
