"""Writes models/import/tests/data/convnext.safetensors: a small ConvNeXt, and its features.

    pip install torch transformers timm safetensors
    python tools/make_convnext_fixtures.py

`weights.*` is DINOv3's ConvNeXt of transformers, with the names that it saves and random weights in 16
bits. `features.HxW` are the features after its third stage, `[1, dim, H, W]`, for the image `image.HxW`.
timm's ConvNeXt with the same weights is checked to have the same features.
"""

from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt

CHANNELS, BLOCKS = [8, 12, 16, 20], [1, 2, 3, 1]
GRIDS = [(2, 2), (2, 3), (4, 2)]
TIMM = [
    ("stages.0.downsample_layers", "stem"),
    ("downsample_layers", "downsample"),
    (".layers.", ".blocks."),
    ("depthwise_conv", "conv_dw"),
    ("pointwise_conv1", "mlp.fc1"),
    ("pointwise_conv2", "mlp.fc2"),
    ("layer_norm", "norm"),
]


def randomize(model, generator):
    """Random weights that 16 bits hold, such that every part of the model has an effect."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "gamma" in name:
                noise = 0.5 + 0.2 * noise
            elif p.ndim > 1:
                noise = noise * (2.0 / p[0].numel()) ** 0.5
            else:
                noise = 0.3 * noise + (p.ndim == 1 and name.endswith("weight"))
            p.copy_(noise.half())
    return model.eval()


def main():
    generator = torch.Generator().manual_seed(5)
    config = transformers.DINOv3ConvNextConfig(hidden_sizes=CHANNELS, depths=BLOCKS)
    model = randomize(transformers.DINOv3ConvNextModel(config), generator)
    # save_pretrained writes names without `model.`.
    state = {key.removeprefix("model."): value for key, value in model.state_dict().items()}

    def in_timm(key):
        for theirs, ours in TIMM:
            key = key.replace(theirs, ours)
        return key.replace("norm", "head.norm") if key.startswith("norm") else key

    other = ConvNeXt(depths=BLOCKS, dims=CHANNELS, num_classes=0).eval()
    other.load_state_dict({in_timm(key): value for key, value in state.items()})

    tensors = {f"weights.{key}": value.half() for key, value in state.items()}
    for h, w in GRIDS:
        image = torch.randn(1, 3, 16 * h, 16 * w, generator=generator).half().float()
        with torch.no_grad():
            features = model(image, output_hidden_states=True).hidden_states[3]
            same = other.forward_intermediates(image, indices=[2], intermediates_only=True)[0]
        assert features.shape == (1, CHANNELS[2], h, w), features.shape
        error = (features - same).abs().max().item()
        print(f"{h}x{w}: largest feature {features.abs().max():.2f}, timm differs by {error:.1e}")
        assert error < 1e-5
        tensors[f"image.{h}x{w}"] = image.half()
        tensors[f"features.{h}x{w}"] = features.contiguous()

    path = Path(__file__).parent.parent / "models/import/tests/data/convnext.safetensors"
    save_file(tensors, path)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
