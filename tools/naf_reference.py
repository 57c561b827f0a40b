"""NAF (Neighborhood Attention Filtering, CVPR 2026; DiveUp has the same network) in plain PyTorch.

Slow and written for reading: attention is one gather per pixel over the upsampled keys and values,
as neighborhood attention with dilation defines it. It is the reference of the kernels, the graphs and
the importer; nothing is shared with them but the names of the weights.

    from naf_reference import Naf
    model = Naf()
    model.load_state_dict(torch.load("naf.pth"))
    upsampled = model(image, features)              # [1, 3, H, W], [1, C, h, w] -> [1, C, H, W]

The image is normalized with ImageNet's mean and standard deviation, whatever the backbone takes.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, WINDOW, PERIODS = 128, 4, 9, 16


class Block(nn.Module):
    """Twice: group normalization, SiLU, convolution with reflect padding."""

    def __init__(self, kernel):
        super().__init__()
        for i in (1, 2):
            setattr(self, f"norm{i}", nn.GroupNorm(8, WIDTH))
            setattr(self, f"conv{i}", convolution(WIDTH, kernel))

    def forward(self, x):
        x = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(x)))


def convolution(inputs, kernel):
    return nn.Conv2d(inputs, WIDTH, kernel, padding=kernel // 2, padding_mode="reflect")


def branch(kernel):
    return nn.Sequential(convolution(3, kernel), Block(kernel), Block(kernel))


class Rope(nn.Module):
    """Rotary encoding of the position in the image."""

    def __init__(self):
        super().__init__()
        k = torch.arange(PERIODS, dtype=torch.float64)
        self.register_buffer("periods", (100.0 ** (k / PERIODS)).float())

    def forward(self, x):
        _, channels, height, width = x.shape
        angles = []
        for length, shape in ((height, (height, 1)), (width, (1, width))):
            at = 2 * (torch.arange(length, dtype=x.dtype) + 0.5) / length - 1
            angle = 2 * math.pi * at[:, None] / self.periods.to(x.dtype)
            angles.append(angle.reshape(*shape, PERIODS).expand(height, width, PERIODS))
        # One angle for each of the first 32 channels of a head, and again for the other 32.
        angle = torch.cat(angles, -1).permute(2, 0, 1)
        heads = x.reshape(1, HEADS, channels // HEADS, height, width)
        first, second = heads.chunk(2, 2)
        cos, sin = angle.cos(), angle.sin()
        rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], 2)
        return rotated.reshape(x.shape)


class ImageEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.sem_encoder, self.rope = branch(1), branch(3), Rope()


def neighbors(length, dilation):
    """[length, 9]: the positions along one axis that each position attends to."""
    rows = []
    for i in range(length):
        same = [p for p in range(length) if p % dilation == i % dilation]
        start = min(max(same.index(i) - WINDOW // 2, 0), len(same) - WINDOW)
        rows.append(same[start:start + WINDOW])
    return torch.tensor(rows)


class Naf(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_encoder = ImageEncoder()

    def forward(self, image, features, size=None):
        """`size` is that of the output; by default the image's."""
        height, width = size or image.shape[-2:]
        if image.shape[-2] > 4 * height or image.shape[-1] > 4 * width:
            small = (min(image.shape[-2], 4 * height, 4 * width), min(image.shape[-1], 4 * width, 4 * height))
            image = F.interpolate(image, size=small, mode="bilinear", align_corners=False)
        encoder = self.image_encoder
        x = torch.cat([encoder.encoder(image), encoder.sem_encoder(image)], 1)
        queries = encoder.rope(F.adaptive_avg_pool2d(x, (height, width)))
        _, channels, h, w = features.shape
        keys = F.adaptive_avg_pool2d(queries, (h, w))
        enlarge = lambda cells: nearest_exact(cells, height, width)
        return attention(queries, enlarge(keys), enlarge(features), (height // h, width // w))


def nearest_exact(cells, height, width):
    """interpolate(mode="nearest-exact") as on a GPU: 32 bits. The CPU rounds some ties otherwise."""
    index = lambda n, to: ((torch.arange(to, dtype=torch.float32) + 0.5)
                           * torch.tensor(n / to, dtype=torch.float32)).floor().long().clamp(max=n - 1)
    rows, columns = index(cells.shape[-2], height), index(cells.shape[-1], width)
    return cells[..., rows, :][..., columns]


def attention(queries, keys, values, dilation):
    height, width = queries.shape[-2:]
    rows, columns = neighbors(height, dilation[0]), neighbors(width, dilation[1])
    heads = lambda x: x[0].reshape(HEADS, -1, height, width)
    queries, keys, values = heads(queries), heads(keys), heads(values)
    out = torch.empty_like(values)
    for y in range(height):
        for x in range(width):
            window = (slice(None), slice(None), rows[y][:, None], columns[x][None, :])
            k, v = keys[window].flatten(2), values[window].flatten(2)
            scores = torch.einsum("hc,hct->ht", queries[:, :, y, x], k) / math.sqrt(k.shape[1])
            out[:, :, y, x] = torch.einsum("ht,hct->hc", scores.softmax(-1), v)
    return out.reshape(1, -1, height, width)
