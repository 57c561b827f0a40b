"""Threads, the interpreter lock, and memory."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import loftup
import numpy as np
import pytest


def test_threads_share_a_perceptor(perceptor, image):
    frames = [np.roll(image, i, 1) for i in range(6)]
    expected = [perceptor(frame, size=28) for frame in frames]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda frame: perceptor(frame, size=28), frames * 3))
    for output, reference in zip(found, expected * 3):
        np.testing.assert_array_equal(output, reference)


def tracker(dim):
    tracker = loftup.Tracker((40, 40), dim, threads=1)
    features = np.random.default_rng(0).normal(size=(40, 40, dim)).astype(np.float32)
    tracker.update(features)
    tracker.start(1, box=(5, 5, 20, 20), size=40)
    return lambda: tracker.update(features)


CALLS = {
    "encode": lambda perceptor, frame, image: lambda: perceptor.encode(image),
    "features": lambda perceptor, frame, image: frame.features,
    "region": lambda perceptor, frame, image: lambda: frame.region(0, 0, 50, 50),
    "points": lambda perceptor, frame, image: lambda: frame.points([[1, 2]] * 256),
    "track": lambda perceptor, frame, image: tracker(64),
}


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS.keys())
def test_the_lock_is_released(perceptor, frame, image, make):
    call = make(perceptor, frame, image)
    count, stop = 0, threading.Event()

    def other():
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0)  # Releases the lock.

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=other)
    # The other thread then runs only while this one releases the lock by itself.
    sys.setswitchinterval(1000)
    try:
        thread.start()
        for _ in range(1000):
            before = count
            call()
            after = count
            if after > before:
                break
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert after > before


def resident():
    """Bytes of memory in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_leaks(perceptor, image):
    frame = perceptor.encode(image, size=28, upsampler="jbu")
    bottom_up = image[::-1]

    def cheap():
        # 50 kB or more in each of these, so that a leak of one in ten calls is far above the limit.
        frame.region(0, 0, 14, 14)
        with pytest.raises(ValueError):
            perceptor.encode(bottom_up, size=(8, 0))
        with pytest.raises(TypeError):
            perceptor.encode(np.zeros((64, 64, 3), np.float32))

    for _ in range(500):
        cheap()
    before = resident()
    for _ in range(10_000):
        cheap()
    assert resident() - before < 16 << 20
