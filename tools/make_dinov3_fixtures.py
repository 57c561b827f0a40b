"""Writes models/import/tests/data/dinov3.safetensors: small DINOv3 models, and their features.

    pip install torch transformers timm safetensors
    python tools/make_dinov3_fixtures.py

`transformers.weights.*` is a model of transformers with the names that it saves, and GELU;
`timm.weights.*` one of timm with SwiGLU and biases of queries and values. Both have random weights,
in 16 bits. `MODEL.HxW` are its features `[1, dim, H, W]` for the image `image.HxW`, computed by the
library in 32 bits. `rounded.HxW` are those of timm's model with the periods of its rotary positions
rounded to bfloat16, as in facebookresearch's files; `rounded.periods` are these periods.
"""

from functools import partial
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from timm.models.eva import Eva

WIDTH, HEADS, DEPTH, HIDDEN, PATCH, REGISTERS = 32, 2, 2, 16, 2, 3
GRIDS = [(2, 3), (1, 5), (3, 3)]


def randomize(model, generator):
    """Random weights that 16 bits hold, such that every part of the model has an effect."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "gamma" in name or "lambda" in name:
                noise = 0.5 + 0.2 * noise
            elif "norm" in name:
                noise = 0.1 * noise + name.endswith("weight")
            elif p.ndim > 1 and "token" not in name:
                noise = noise * (2.0 / p[0].numel()) ** 0.5
            else:
                noise = 0.5 * noise
            p.copy_(noise.half())
    return model.eval()


def of_transformers():
    config = transformers.DINOv3ViTConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        patch_size=PATCH, num_register_tokens=REGISTERS,
    )  # fmt: skip
    return transformers.DINOv3ViTModel(config)


def of_timm():
    # As timm's vit_small_plus_patch16_dinov3_qkvb, but smaller.
    return Eva(
        img_size=PATCH * 3, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS,
        mlp_ratio=HIDDEN / WIDTH, num_classes=0, dynamic_img_size=True, qkv_bias=True, init_values=1e-5,
        rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True,
        use_abs_pos_emb=False, swiglu_mlp=True, swiglu_align_to=8, num_reg_tokens=REGISTERS,
        use_fc_norm=False, norm_layer=partial(torch.nn.LayerNorm, eps=1e-5),
    )  # fmt: skip


def main():
    generator = torch.Generator().manual_seed(3)
    images = {g: torch.randn(1, 3, *(PATCH * n for n in g), generator=generator) for g in GRIDS}
    tensors = {f"image.{h}x{w}": image for (h, w), image in images.items()}

    def features(name, tokens):
        for (h, w), image in images.items():
            with torch.no_grad():
                x = tokens(image)[:, 1 + REGISTERS :]
            tensors[f"{name}.{h}x{w}"] = x.transpose(1, 2).reshape(1, WIDTH, h, w).contiguous()

    def weights(name, state):
        tensors.update({f"{name}.weights.{key}": tensor.half() for key, tensor in state.items()})

    model = randomize(of_transformers(), generator)
    # save_pretrained writes the encoder's names without `model.`.
    state = model.state_dict().items()
    weights("transformers", {key.removeprefix("model."): tensor for key, tensor in state})
    features("transformers", lambda image: model(image).last_hidden_state)

    model = randomize(of_timm(), generator)
    weights("timm", model.state_dict())
    features("timm", model.forward_features)
    periods = model.rope.periods.bfloat16()
    model.rope.periods.copy_(periods)
    tensors["rounded.periods"] = periods
    features("rounded", model.forward_features)

    path = Path(__file__).parent.parent / "models/import/tests/data/dinov3.safetensors"
    save_file(tensors, path)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
