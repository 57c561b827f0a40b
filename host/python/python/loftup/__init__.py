"""Dense features of vision foundation models, at the resolution of the image.

>>> import loftup
>>> loftup.convert("small.loftup", builtin="scenes")
>>> perceptor = loftup.Perceptor.open("small.loftup")
>>> frame = perceptor.encode("photo.jpg")
>>> frame.features().shape
(224, 224, 64)
"""

from ._loftup import (
    NO_CLASS,
    ClickSegmenter,
    Frame,
    Head,
    LoftupError,
    Perceptor,
    TrackedMask,
    TrackedObject,
    Tracker,
    __version__,
    convert,
    head_classes,
    head_depth,
    head_pca,
    quantize,
    verify,
)

__all__ = [
    "NO_CLASS",
    "ClickSegmenter",
    "Frame",
    "Head",
    "LoftupError",
    "Perceptor",
    "TrackedMask",
    "TrackedObject",
    "Tracker",
    "__version__",
    "convert",
    "head_classes",
    "head_depth",
    "head_pca",
    "quantize",
    "verify",
]
