from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, TypedDict, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str
NO_CLASS: int

Path: TypeAlias = str | PathLike[str]
# A path, an image of Pillow, or an array of uint8.
Image: TypeAlias = Any
Format: TypeAlias = Literal["rgb", "bgr", "rgba", "bgra", "gray"]
Size: TypeAlias = int | tuple[int, int]
Range: TypeAlias = Literal["image", "full"] | tuple[float, float]
Engine: TypeAlias = Literal["auto", "cpu", "tensorrt"]
Precision: TypeAlias = Literal["fp32", "fp16", "int8", "fp16-weights"]
CpuPrecision: TypeAlias = Literal["fp32", "auto", "int16", "fp16", "bf16", "int8"]
Upsampler: TypeAlias = Literal["loftup", "jbu"]
Region: TypeAlias = tuple[int, int, int, int]
Progress: TypeAlias = Callable[[str, int, int], object]

class LoftupError(RuntimeError): ...

class Health(TypedDict):
    answering: str
    degraded: str | None
    preferred_runs: int
    fallback_runs: int
    errors: int
    not_finite: int
    wrong: int
    timeouts: int

class Converted(TypedDict):
    manifest: dict[str, Any]
    checks: list[dict[str, Any]]

@final
class Perceptor:
    @staticmethod
    def open(
        path: Path,
        *,
        engine: Engine = "auto",
        precision: Precision | None = None,
        cpu_precision: CpuPrecision = "fp32",
        threads: int | None = None,
        tile: int | None = None,
    ) -> Perceptor: ...
    @property
    def path(self) -> PathLike[str]: ...
    @property
    def manifest(self) -> dict[str, Any]: ...
    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def patch(self) -> int | None: ...
    @property
    def grid(self) -> tuple[int, int] | None: ...
    @property
    def dim(self) -> int | None: ...
    @property
    def heads(self) -> list[str]: ...
    @property
    def kind(self) -> Literal["loftup", "naf"] | None: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def threads(self) -> int: ...
    @property
    def health(self) -> Health: ...
    def compile(self, size: Size | None = None) -> None: ...
    def encode(
        self,
        image: Image,
        *,
        format: Format | None = None,
        size: Size | None = None,
        range: Range = "image",
        upsampler: Upsampler = "loftup",
    ) -> Frame: ...
    def encode_features(
        self,
        features: NDArray[np.float32],
        image: Image,
        *,
        format: Format | None = None,
        size: Size | None = None,
        range: Range = "image",
        upsampler: Upsampler = "loftup",
    ) -> Frame: ...
    def backbone_features(
        self, image: Image, *, format: Format | None = None, size: Size | None = None
    ) -> NDArray[np.float32]: ...
    def __call__(
        self,
        image: Image,
        *,
        head: str | Head | None = None,
        region: Region | None = None,
        points: ArrayLike | None = None,
        format: Format | None = None,
        size: Size | None = None,
        range: Range = "image",
        upsampler: Upsampler = "loftup",
    ) -> NDArray[np.float32]: ...
    def head(self, name: str) -> Head: ...
    def head_from_file(self, path: Path) -> Head: ...
    def custom_head(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> Head: ...

@final
class Frame:
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def dim(self) -> int: ...
    def features(self, *, head: str | Head | None = None) -> NDArray[np.float32]: ...
    def region(
        self, x: int, y: int, width: int, height: int, *, head: str | Head | None = None
    ) -> NDArray[np.float32]: ...
    def points(
        self, points: ArrayLike, *, head: str | Head | None = None
    ) -> NDArray[np.float32]: ...
    def classes(self, head: str | Head | None = None) -> NDArray[np.uint8]: ...
    def depth(self, head: str | Head | None = None) -> NDArray[np.float32]: ...

@final
class Head:
    @property
    def kind(self) -> Literal["classes", "words", "descriptors", "depth"]: ...
    @property
    def names(self) -> list[str] | None: ...
    @property
    def dim(self) -> int: ...
    @property
    def outputs(self) -> int: ...

@final
class ClickSegmenter:
    def __new__(cls, frame: Frame, threshold: float | None = None) -> ClickSegmenter: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def clicks(self) -> list[tuple[int, int, bool]]: ...
    def click(self, x: int, y: int, *, positive: bool = True) -> NDArray[np.bool_]: ...
    def mask(self) -> NDArray[np.bool_]: ...
    def mask_at(self, size: Size) -> NDArray[np.bool_]: ...
    def similarity(self) -> NDArray[np.float32]: ...
    def set_threshold(self, threshold: float) -> None: ...
    def clear(self) -> None: ...

@final
class Tracker:
    def __new__(
        cls,
        grid: tuple[int, int],
        dim: int,
        *,
        last_frames: int | None = None,
        radius: int | None = None,
        top_k: int | None = None,
        temperature: float | None = None,
        output_scale: int | None = None,
        min_label: float | None = None,
        max_objects: int | None = None,
        threads: int | None = None,
    ) -> Tracker: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def dim(self) -> int: ...
    @property
    def objects(self) -> list[int]: ...
    @property
    def free_label(self) -> int | None: ...
    @property
    def memory(self) -> int: ...
    def update(self, features: NDArray[np.float32]) -> None: ...
    def start(
        self,
        label: int,
        *,
        box: Region | None = None,
        click: tuple[int, int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        size: Size | None = None,
    ) -> None: ...
    def start_mask(self, mask: NDArray[np.uint8]) -> None: ...
    def remove(self, label: int) -> bool: ...
    def mask(self, size: Size) -> TrackedMask: ...
    def soft_labels(self) -> NDArray[np.float32]: ...

@final
class TrackedMask:
    @property
    def labels(self) -> NDArray[np.uint8]: ...
    @property
    def objects(self) -> list[TrackedObject]: ...

@final
class TrackedObject:
    @property
    def label(self) -> int: ...
    @property
    def area(self) -> int: ...
    @property
    def bounds(self) -> Region | None: ...
    @property
    def confidence(self) -> float: ...

def convert(
    out: Path,
    *,
    backbone: str | None = None,
    backbone_weights: Path | None = None,
    upsampler_weights: Path | None = None,
    builtin_upsampler: bool = False,
    builtin: Literal["photos", "scenes"] | None = None,
    prefix: str | None = None,
    heads: int | None = None,
    activation: Literal["gelu", "quick-gelu", "gelu-tanh"] | None = None,
    positions: Literal["facebook", "timm", "transformers"] | None = None,
    text_space: bool = False,
    backbone_onnx: Path | None = None,
    patch: int | None = None,
    backbone_output: str | None = None,
    layout: str | None = None,
    extra_tokens: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: Size | None = None,
    license: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Converted: ...
def quantize(
    bundle: Path,
    out: Path,
    *,
    precision: Literal["fp16", "int8", "fp16-weights"],
    images: Path | Sequence[Path],
    max_error: float | None = None,
    limit: int = 16,
    tiles: int = 4,
    size: Size | None = None,
    keep: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]: ...
def verify(bundle: Path, *, engine: Engine = "auto") -> list[dict[str, Any]]: ...
def head_classes(
    bundle: Path,
    data: Path,
    out: Path,
    *,
    name: str = "classes",
    epochs: int | None = None,
    size: Size | None = None,
    range: Range = "image",
    samples: int = 512,
    limit: int | None = None,
    seed: int = 0,
    engine: Engine = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]: ...
def head_pca(
    bundle: Path,
    images: Path,
    out: Path,
    *,
    channels: int = 8,
    name: str = "pca",
    size: Size | None = None,
    range: Range = "image",
    samples: int = 512,
    limit: int | None = None,
    seed: int = 0,
    engine: Engine = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]: ...
def head_depth(
    bundle: Path,
    data: Path,
    out: Path,
    *,
    name: str = "depth",
    set: str | None = None,
    max_depth: float | None = None,
    bins: int | None = None,
    ridge: float = ...,
    size: Size | None = None,
    range: Range = "image",
    samples: int = 512,
    limit: int | None = None,
    seed: int = 0,
    engine: Engine = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]: ...
