"""For tools/try_library.sh: an image, and outputs of the examples against those of `loftup run`.

    compare.py image PHOTO.ppm
    compare.py amd64|arm64 EXPECTED OUTPUTS
"""
import ast
import sys
from array import array
from pathlib import Path


def image(path, width=97, height=61):
    pixels = bytes(
        (3 * x + 5 * y + 40 * c + 90 * ((x // 12 + y // 9) % 2)) % 256
        for y in range(height) for x in range(width) for c in range(3))
    Path(path).write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels)


def npy(path, kind):
    """Shape and bytes of an array."""
    data = path.read_bytes()
    assert data[:7] == b"\x93NUMPY\x01", path
    end = 10 + int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:end].decode())
    assert header["descr"] == kind and not header["fortran_order"], header
    return header["shape"], data[end:]


def compare(architecture, expected, outputs):
    """The same bits on the same architecture. Another's kernels add in another order."""
    same = architecture == "amd64"
    (_, channels, height, width), values = npy(expected / "features.npy", "<f4")
    values = array("f", values)
    found = array("f", (outputs / "features.raw").read_bytes())
    assert len(found) == len(values), f"{len(found)} features, not {len(values)}"
    # [channels, height, width] as [height, width, channels].
    size = width * height
    values = array("f", (values[channel * size + pixel] for pixel in range(size) for channel in range(channels)))
    equal = sum(a == b for a, b in zip(found, values))
    largest = max(map(abs, values))
    error = max(abs(a - b) for a, b in zip(found, values))
    print(f"features: {equal} of {len(values)} equal, largest error {error:.2g}, largest feature {largest:.3g}")
    assert found.tobytes() == values.tobytes() if same else error < 1e-4 * largest, "other features"

    _, values = npy(expected / "classes.npy", "|u1")
    found = (outputs / "classes.raw").read_bytes()
    assert len(found) == len(values), f"{len(found)} classes, not {len(values)}"
    other = sum(a != b for a, b in zip(found, values))
    print(f"classes: {other} of {len(values)} pixels differ")
    assert len(set(values)) > 1, "one class only: nothing to compare"
    assert other == 0 if same else other < len(values) // 1000, "other classes"


if sys.argv[1] == "image":
    image(sys.argv[2])
else:
    compare(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
