"""Writes models/import/tests/data/vit_posembed.safetensors: position embeddings resampled by PyTorch.

    pip install torch safetensors
    python tools/make_posembed_fixtures.py

Each `grid.N` is a random training grid [N, N, D]; `offset.N.HxW` and `antialias.N.HxW` are the
same on a grid of H rows and W columns, [H, W, D]: bicubic with the scale factors (H + 0.1) / N and
(W + 0.1) / N, as DINOv2 without registers and MaskCLIP do it, and antialiased bicubic to size, as
DINOv2 with registers and timm do it. `bicubic.N.HxW` is bicubic to size without antialiasing, as
transformers does it.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SIZES = {
    7: [(5, 9), (7, 9), (11, 4), (13, 13), (1, 1), (1, 20), (6, 7)],
    14: [(16, 16), (9, 31)],
    37: [(16, 16), (17, 40), (5, 3)],
}
CHANNELS = {7: 3, 14: 2, 37: 1}


def resample(grid, size, method):
    x = grid.permute(2, 0, 1)[None]
    n = grid.shape[0]
    if method == "offset":
        factors = tuple((s + 0.1) / n for s in size)
        y = F.interpolate(x, scale_factor=factors, mode="bicubic")
    else:
        y = F.interpolate(x, size=size, mode="bicubic", antialias=method == "antialias")
    assert y.shape[2:] == torch.Size(size)
    return y[0].permute(1, 2, 0).contiguous()


def main():
    generator = torch.Generator().manual_seed(14)
    tensors = {}
    for n, sizes in SIZES.items():
        grid = torch.randn(n, n, CHANNELS[n], generator=generator)
        tensors[f"grid.{n}"] = grid
        for h, w in sizes:
            for method in ("offset", "antialias", "bicubic"):
                tensors[f"{method}.{n}.{h}x{w}"] = resample(grid, (h, w), method)
    path = Path(__file__).parent.parent / "models/import/tests/data/vit_posembed.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
