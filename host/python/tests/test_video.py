"""Tracking and clicks."""

import loftup
import numpy as np
import pytest

GRID = (12, 16)


def scene(shift):
    """Features of a square on a background, and where it is."""
    inside = np.zeros(GRID, bool)
    inside[3:8, 2 + shift : 8 + shift] = True
    features = np.where(inside[..., None], [1.0, 0, 0, 0.1], [0, 1.0, 0, 0.1])
    return features.astype(np.float32), inside


@pytest.mark.parametrize(
    "seed",
    [
        {"mask": scene(0)[1]},
        {"box": (2, 3, 6, 5), "size": GRID},
        {"click": (4, 5), "size": GRID},
    ],
    ids=["mask", "box", "click"],
)
def test_an_object_is_followed(seed):
    tracker = loftup.Tracker(GRID, 4, radius=3, output_scale=1, threads=1)
    assert tracker.objects == [] and tracker.free_label == 1 and tracker.memory > 0
    tracker.update(scene(0)[0])
    tracker.start(3, **seed)
    assert tracker.objects == [3]
    for shift in range(1, 6):
        features, inside = scene(shift)
        tracker.update(features)
        mask = tracker.mask(GRID)
        np.testing.assert_array_equal(mask.labels, 3 * inside)
        (found,) = mask.objects
        assert (found.label, found.area) == (3, inside.sum())
        assert found.bounds == (2 + shift, 3, 6, 5) and found.confidence > 0.9
    soft = tracker.soft_labels()
    assert soft.shape == (*GRID, 11)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-5)
    assert tracker.remove(3) and not tracker.remove(3)


def test_start_mask():
    tracker = loftup.Tracker(GRID, 4, output_scale=1)
    features, inside = scene(0)
    tracker.update(features)
    labels = inside.astype(np.uint8) * 2
    labels[11, 0] = 255
    tracker.start_mask(np.asfortranarray(labels))
    assert tracker.objects == [2]
    np.testing.assert_array_equal(tracker.mask(GRID).labels, 2 * inside)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t: t.update(np.zeros((12, 16, 3), np.float32)), "shape"),
        (lambda t: t.update(np.full((12, 16, 4), np.nan, np.float32)), "NaN"),
        (lambda t: t.start(1, box=(0, 0, 4, 4)), "size"),
        (lambda t: t.start(1, box=(0, 0, 99, 4), size=GRID), "box"),
        (lambda t: t.start(0, click=(1, 1), size=GRID), "label"),
        (lambda t: t.start(1, mask=np.zeros(GRID, bool)), "mask"),
        (lambda t: loftup.Tracker(GRID, 4, top_k=0), "top_k"),
    ],
)
def test_wrong_arguments(call, message):
    tracker = loftup.Tracker(GRID, 4)
    tracker.update(scene(0)[0])
    with pytest.raises(ValueError, match=message):
        call(tracker)


def test_clicks(perceptor, frame):
    segmenter = loftup.ClickSegmenter(frame, threshold=0.8)
    assert segmenter.size == frame.size
    assert not segmenter.mask().any()
    mask = segmenter.click(40, 20)
    assert mask.dtype == bool and mask[20, 40]
    features = frame.features()
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    similarity = features @ features[20, 40]
    np.testing.assert_allclose(segmenter.similarity(), similarity, atol=1e-5)
    # The mask is the connected part.
    assert (similarity[mask] > 0.8 - 1e-5).all()
    smaller = segmenter.click(0, 55, positive=False)
    assert not smaller[55, 0] and (mask | ~smaller).all()
    assert segmenter.clicks == [(40, 20, True), (0, 55, False)]
    large = segmenter.mask_at((112, 168))
    assert large.shape == (112, 168) and large[41, 81]
    segmenter.clear()
    assert segmenter.clicks == [] and not segmenter.mask().any()
    with pytest.raises(ValueError, match="outside"):
        segmenter.click(84, 0)
    with pytest.raises(ValueError, match="cosine"):
        segmenter.set_threshold(2)
