"""Makes the fixtures of firmware/runtime/tests/npy.rs with NumPy.

    python tools/make_npy_fixtures.py

Writes into firmware/runtime/tests/data/npy/ arrays of the types, orders and format versions
that are read. Element (i, j, k) of shape (2, 3, 4) is 100 i + 10 j + k, less 0.5 unless unsigned.
"""

import pathlib

import numpy as np
from numpy.lib import format as npy

FOLDER = pathlib.Path(__file__).parent.parent / "firmware/runtime/tests/data/npy"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    i, j, k = np.meshgrid(np.arange(2), np.arange(3), np.arange(4), indexing="ij")
    values = (100 * i + 10 * j + k).astype(np.float64)

    def put(name, array, version=None):
        with open(FOLDER / (name + ".npy"), "wb") as file:
            npy.write_array(file, array, version=version)

    for name, dtype in [("f2", "<f2"), ("f4", "<f4"), ("f8", "<f8")]:
        array = (values - 0.5).astype(dtype)
        put(name, array)
        put(name + "_fortran", np.asfortranarray(array))
    put("u1", values.astype(np.uint8))
    put("u1_fortran", np.asfortranarray(values.astype(np.uint8)))
    put("v2", (values - 0.5).astype("<f4"), (2, 0))
    put("v3", (values - 0.5).astype("<f4"), (3, 0))
    put("scalar", np.float32(2.5))
    put("vector", np.arange(5, dtype=np.float32))
    put("empty", np.zeros((3, 0, 2), np.float32))
    put("big_endian", values.astype(">f4"))
    put("int64", values.astype(np.int64))
    put("record", np.zeros(2, [("x", "<f4"), ("y", "<f4")]))


main()
