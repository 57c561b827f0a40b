"""Compares converted backbones with transformers, timm and open_clip.

    pip install torch transformers timm open_clip_torch safetensors numpy onnxruntime
    cargo build --release --bin loftup
    python tools/check_backbones.py target/release/loftup [--only TEXT ...] [--out table.md]

Builds each model with random weights, at its real width and with two blocks (or as many as its name
says), saves it in its library's names next to the config file that the library writes, converts it
with `loftup convert`, and compares the features of `loftup run` and of ONNX Runtime with the
library's own, at the trained size and at a larger one that is not square, resampled as in that
library. For CLIP the reference are MaskCLIP's patch features,
computed with the library's modules: of the last block only the value and output projections. For
SigLIP in the space of texts it is the library's pooling head, given each token as a sequence of its own.

Prints the largest difference relative to the largest feature, and fails above 1e-4. `--out` also
writes the table as Markdown.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

LIMIT = 1e-4
DEPTH = 2
# Side of the training grid, except for models of 336 pixels.
GRID = 8


def randomize(model):
    """Random weights, such that every part of the model has an effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("head.bias"):
                p.zero_()  # timm's CLIP projection
            elif any(s in name for s in ("gamma", "lambda", "ls1", "ls2")):
                p.copy_(0.5 + 0.2 * noise)
            elif p.ndim > 1 and not any(s in name for s in ("pos", "token", "class_emb", "latent")):
                p.copy_(noise * (2.0 / p[0].numel()) ** 0.5)
            elif "norm" in name.lower() or "ln_" in name:
                p.copy_(0.1 * noise + (name.endswith("weight")))
            else:
                p.copy_(0.5 * noise)
    return model.eval()


def each(head, tokens):
    """The pooling head of each token alone."""
    return head(tokens[0][:, None])[None]


def to_map(tokens, image, patch):
    rows, columns = image.shape[2] // patch, image.shape[3] // patch
    return tokens[0].T.reshape(1, -1, rows, columns)


# --- transformers ---------------------------------------------------------------------------


def hf_dinov2(width, heads, registers=0, swiglu=False, depth_anything=False):
    import transformers as T

    kind = T.Dinov2WithRegistersConfig if registers else T.Dinov2Config
    more = {"num_register_tokens": registers} if registers else {}
    config = kind(hidden_size=width, num_hidden_layers=DEPTH, num_attention_heads=heads, patch_size=14,
                  image_size=112, use_swiglu_ffn=swiglu, **more)
    if depth_anything:
        config.out_features = [f"stage{i + 1}" for i in range(DEPTH)]
        config.reshape_hidden_states = False
        whole = randomize(T.DepthAnythingForDepthEstimation(T.DepthAnythingConfig(
            backbone_config=config, reassemble_hidden_size=width, neck_hidden_sizes=[16] * DEPTH,
            reassemble_factors=[1] * DEPTH, fusion_hidden_size=16)))
        backbone = whole.backbone

        def forward(image):
            x = backbone(image).feature_maps[-1]
            return to_map(x[:, 1:], image, 14)
    else:
        whole = randomize((T.Dinov2WithRegistersModel if registers else T.Dinov2Model)(config))

        def forward(image):
            return to_map(whole(image).last_hidden_state[:, 1 + registers:], image, 14)

    return whole.save_pretrained, forward, 112, 14


def hf_dinov3(width, heads, depth=DEPTH, registers=4, gated=False, save="pretrained", **more):
    import transformers as T

    act = "silu" if gated else "gelu"
    model = randomize(T.DINOv3ViTModel(T.DINOv3ViTConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, num_attention_heads=heads,
        num_register_tokens=registers, use_gated_mlp=gated, hidden_act=act, **more)))

    def save_state(directory):
        """As torch.save(model.state_dict()) would, without a config file."""
        directory.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), directory / "model.safetensors")

    def forward(image):
        return to_map(model(image).last_hidden_state[:, 1 + registers:], image, 16)

    return save_state if save == "state" else model.save_pretrained, forward, GRID * 16, 16


def hf_clip(width, heads, patch, act, projection=False, grid=GRID):
    import transformers as T

    vision = dict(hidden_size=width, num_hidden_layers=DEPTH, num_attention_heads=heads, patch_size=patch,
                  image_size=grid * patch, intermediate_size=2 * width, hidden_act=act, projection_dim=64)
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=20,
                projection_dim=64)
    if projection:
        model = T.CLIPVisionModelWithProjection(T.CLIPVisionConfig(**vision))
    else:
        model = T.CLIPModel(T.CLIPConfig(vision_config=vision, text_config=text, projection_dim=64))
    randomize(model)
    v = model.vision_model

    def forward(image):
        x = v.embeddings(image, interpolate_pos_encoding=True)
        x = v.pre_layrnorm(x)
        for layer in v.encoder.layers[:-1]:
            x = layer(x, attention_mask=None)
            x = x[0] if isinstance(x, tuple) else x
        last = v.encoder.layers[-1]
        x = last.layer_norm1(x[:, 1:])
        x = last.self_attn.out_proj(last.self_attn.v_proj(x))
        return to_map(model.visual_projection(v.post_layernorm(x)), image, patch)

    return model.save_pretrained, forward, grid * patch, patch


def hf_siglip(width, heads, patch, vision_only=False, text_space=False):
    import transformers as T

    vision = dict(hidden_size=width, num_hidden_layers=DEPTH, num_attention_heads=heads, patch_size=patch,
                  image_size=GRID * patch + (6 if patch == 14 else 0), intermediate_size=2 * width)
    if vision_only:
        model = T.SiglipVisionModel(T.SiglipVisionConfig(**vision))
        v = model
    else:
        text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=20)
        model = T.SiglipModel(T.SiglipConfig(vision_config=vision, text_config=text))
        v = model.vision_model
    randomize(model)

    def forward(image):
        tokens = v(image, interpolate_pos_encoding=True).last_hidden_state
        if text_space:
            tokens = each(getattr(v, "vision_model", v).head, tokens)
        return to_map(tokens, image, patch)

    return model.save_pretrained, forward, GRID * patch, patch


# --- timm -----------------------------------------------------------------------------------


def timm_model(architecture, patch, text_space=False, **more):
    import timm

    side = (24 if architecture.endswith("336") else GRID) * patch
    args = dict(depth=DEPTH, img_size=side, **more)
    model = randomize(timm.create_model(architecture, dynamic_img_size=True, **args))

    def save(directory):
        directory.mkdir(parents=True, exist_ok=True)
        from timm.models._hub import save_for_hf

        save_for_hf(model, str(directory), model_args=args, safe_serialization=True)

    def forward(image):
        x = model.patch_embed(image)
        x = model._pos_embed(x)
        x = model.norm_pre(x)
        if "clip" not in architecture.split("_"):
            tokens = model.norm(model.blocks(x))[:, model.num_prefix_tokens:]
            return to_map(each(model.attn_pool, tokens) if text_space else tokens, image, patch)
        for block in model.blocks[:-1]:
            x = block(x)
        last = model.blocks[-1]
        x = last.attn.qkv(last.norm1(x[:, 1:])).chunk(3, dim=-1)[2]
        return to_map(model.head(model.norm(last.attn.proj(x))), image, patch)

    return save, forward, side, patch


def facebook_dinov2(width, heads, registers=0, swiglu=False, prefix=""):
    """timm's model under facebookresearch's names; there is no config file."""
    size = {384: "small", 768: "base", 1024: "large", 1536: "giant"}[width]
    name = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    save, forward, side, patch = timm_model(name, 14)

    def save_renamed(directory):
        save(directory)
        from safetensors.torch import load_file

        tensors = load_file(directory / "model.safetensors")
        for path in directory.iterdir():
            path.unlink()
        if registers:
            tensors["register_tokens"] = tensors.pop("reg_token")
            # timm does not add a position to the class token.
            zero = torch.zeros(1, 1, width)
            tensors["pos_embed"] = torch.cat([zero, tensors["pos_embed"]], 1)
        if swiglu:
            for key in list(tensors):
                for timm_name, name in (("mlp.fc1.", "mlp.w12."), ("mlp.fc2.", "mlp.w3.")):
                    if timm_name in key:
                        tensors[key.replace(timm_name, name)] = tensors.pop(key)
        save_file({prefix + k: v.contiguous() for k, v in tensors.items()}, directory / "model.safetensors")

    return save_renamed, forward, side, patch


def timm_dinov3(name, depth):
    import timm
    from timm.models._hub import save_for_hf

    model = randomize(timm.create_model(name, depth=depth, num_classes=0))

    def save(directory):
        directory.mkdir(parents=True, exist_ok=True)
        args = dict(depth=depth, num_classes=0)
        save_for_hf(model, str(directory), model_args=args, safe_serialization=True)

    def forward(image):
        return to_map(model.forward_features(image)[:, model.num_prefix_tokens:], image, 16)

    return save, forward, GRID * 16, 16, model


def facebook_dinov3(name, depth):
    """timm's model under facebookresearch's names, in its types: periods rounded to bfloat16, and a
    bias whose part for the keys is masked. There is no config file."""
    _, forward, side, patch, model = timm_dinov3(name, depth)
    periods = model.rope.periods.bfloat16()
    model.rope.periods.copy_(periods)
    width = model.embed_dim
    mask = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])

    def save(directory):
        directory.mkdir(parents=True, exist_ok=True)
        state = {"rope_embed.periods": periods, "mask_token": torch.ones(1, width)}
        plus = any("fc1_g" in key for key in model.state_dict())
        for key, tensor in model.state_dict().items():
            block, _, own = key.rpartition("attn.")
            if own == "q_bias":
                bias = [tensor, torch.ones(width), model.state_dict()[f"{block}attn.v_bias"]]
                state[f"{block}attn.qkv.bias"] = torch.cat(bias)
                state[f"{block}attn.qkv.bias_mask"] = mask.clone()
            elif own != "v_bias":
                pairs = [("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")]
                if plus:
                    pairs += [("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3")]
                for theirs, ours in pairs:
                    key = key.replace(theirs, ours)
                state[key] = tensor
        save_file(state, directory / "model.safetensors")

    return save, forward, side, patch


# --- ConvNeXt -------------------------------------------------------------------------------

CONVNEXT = {"tiny": (96, 9), "small": (96, 27), "base": (128, 27), "large": (192, 27)}


def convnext_randomize(model):
    """Factors of blocks so small that features do not grow with the number of blocks."""
    randomize(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("gamma"):
                p.mul_(0.3)
    return model


def hf_convnext(size):
    import transformers as T

    width, blocks = CONVNEXT[size]
    config = T.DINOv3ConvNextConfig(hidden_sizes=[width * 2**i for i in range(4)], depths=[3, 3, blocks, 3])
    model = convnext_randomize(T.DINOv3ConvNextModel(config))

    def forward(image):
        return model(image, output_hidden_states=True).hidden_states[3]

    return model.save_pretrained, forward, GRID * 16, 16


def timm_convnext(size):
    import timm
    from timm.models._hub import save_for_hf

    model = convnext_randomize(timm.create_model(f"convnext_{size}.dinov3_lvd1689m", num_classes=0))

    def save(directory):
        directory.mkdir(parents=True, exist_ok=True)
        save_for_hf(model, str(directory), model_args=dict(num_classes=0), safe_serialization=True)

    def forward(image):
        return model.forward_intermediates(image, indices=[2], intermediates_only=True)[0]

    return save, forward, GRID * 16, 16, model


def facebook_convnext(size):
    """timm's model under facebookresearch's names, without a config file."""
    _, forward, side, patch, model = timm_convnext(size)

    def name(key):
        for i in range(1, 4):
            key = key.replace(f"stages.{i}.downsample", f"downsample_layers.{i}")
        for theirs, ours in [("stem", "downsample_layers.0"), (".blocks.", "."), ("conv_dw", "dwconv"),
                             ("mlp.fc", "pwconv"), ("head.norm", "norm")]:
            key = key.replace(theirs, ours)
        return key

    def save(directory):
        directory.mkdir(parents=True, exist_ok=True)
        state = {name(key): tensor for key, tensor in model.state_dict().items()}
        save_file(state, directory / "model.safetensors")

    return save, forward, side, patch


# --- open_clip ------------------------------------------------------------------------------


def open_clip_model(name, quick_gelu=None, config=True, text_space=False):
    import open_clip
    import timm

    cfg = open_clip.get_model_config(name)
    vision = cfg["vision_cfg"]
    siglip = "timm_model_name" in vision
    cfg["text_cfg"].update(layers=1, width=64, heads=1, vocab_size=50)
    cfg["text_cfg"].pop("hf_tokenizer_name", None)
    if quick_gelu is not None:
        cfg["quick_gelu"] = quick_gelu
    if siglip:
        patch = int(vision["timm_model_name"].split("patch")[1].split("_")[0])
    else:
        patch = vision["patch_size"]
        vision["layers"] = DEPTH
    side = vision["image_size"] = (24 if name.endswith("336") else GRID) * patch
    create = timm.create_model
    kind = open_clip.model.CustomTextCLIP if siglip else open_clip.model.CLIP
    # open_clip's config has no depth for timm's models.
    with mock.patch.object(timm, "create_model", lambda *a, **k: create(
            *a, depth=DEPTH, img_size=side, dynamic_img_size=True, **k)):
        model = kind(**without_custom(cfg))
    if siglip:
        vision["timm_model_kwargs"] = dict(depth=DEPTH)
    visual = randomize(model).visual

    def save(directory):
        directory.mkdir(parents=True, exist_ok=True)
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(state, directory / "model.safetensors")
        if config:
            mean, std = ([0.5] * 3, [0.5] * 3) if siglip else (
                open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
            saved = {"model_cfg": cfg, "preprocess_cfg": {"mean": list(mean), "std": list(std)}}
            (directory / "open_clip_config.json").write_text(json.dumps(saved))

    def forward(image):
        if siglip:
            trunk = visual.trunk
            x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(image)))
            tokens = trunk.norm(trunk.blocks(x))
            return to_map(each(trunk.attn_pool, tokens) if text_space else tokens, image, patch)
        x = visual.conv1(image).flatten(2).transpose(1, 2)
        rows, columns = image.shape[2] // patch, image.shape[3] // patch
        position = visual.positional_embedding
        grid = int((len(position) - 1) ** 0.5)
        if (rows, columns) != (grid, grid):
            # As in open_clip's resize_pos_embed, which supports only square images.
            p = position[1:].T.reshape(1, -1, grid, grid)
            p = F.interpolate(p, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
            position = torch.cat([position[:1], p[0].flatten(1).T])
        x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], 1) + position
        x = visual.ln_pre(x)
        blocks = visual.transformer.resblocks
        for block in blocks[:-1]:
            x = block(x)
        last = blocks[-1]
        x = last.ln_1(x[:, 1:])
        attn, width = last.attn, x.shape[-1]
        x = F.linear(x, attn.in_proj_weight[2 * width:], attn.in_proj_bias[2 * width:])
        return to_map(visual.ln_post(attn.out_proj(x)) @ visual.proj, image, patch)

    return save, forward, side, patch


def without_custom(cfg):
    return {k: v for k, v in cfg.items() if k in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}


# --- the table ------------------------------------------------------------------------------


def models():
    """Name, source, positions, backbone, options, and what builds it."""
    sizes = [("S", 384, 6), ("B", 768, 12), ("L", 1024, 16), ("g", 1536, 24)]
    for size, width, heads in sizes:
        word = {"S": "small", "B": "base", "L": "large", "g": "giant"}[size]
        giant = size == "g"
        for registers in (0, 4):
            label = f"DINOv2 {size}/14{' reg' if registers else ''}"
            backbone = "dinov2-reg" if registers else "dinov2"
            yield (label, "transformers", "transformers", backbone, [],
                   lambda w=width, h=heads, r=registers, g=giant: hf_dinov2(w, h, r, g))
            name = f"vit_{word}_patch14{'_reg4' if registers else ''}_dinov2"
            yield label, "timm", "timm", backbone, [], lambda n=name: timm_model(n, 14)
            yield (label, "facebook names", "timm", backbone, ["--heads", str(heads)],
                   lambda w=width, h=heads, r=registers, g=giant: facebook_dinov2(w, h, r, g))
    for size, width, heads, plus in [("T", 192, 3, False), ("S", 384, 6, False), ("S+", 384, 6, True), ("B", 768, 12, False),
                                     ("L", 1024, 16, False), ("L+", 1024, 16, True), ("H+", 1280, 20, True)]:
        for depth in ([2, 12] if width == 384 else [2]):
            label = f"DINOv3 {size}/16, {depth} blocks"
            yield (label, "transformers", None, "dinov3", [],
                   lambda w=width, h=heads, d=depth, p=plus: hf_dinov3(w, h, d, gated=p))
            word = {"T": "tiny", "S": "small", "S+": "small_plus", "B": "base", "L": "large", "H+": "huge_plus"}.get(size)
            for bias in ("", "_qkvb"):
                name = f"vit_{word}_patch16_dinov3{bias}"
                if word and (bias or word != "tiny"):
                    yield (f"{label}{bias.replace('_', ' ')}", "timm", None, "dinov3", ["--heads", str(heads)],
                           lambda n=name, d=depth: timm_dinov3(n, d)[:4])
            if word:
                yield label, "facebook names", None, "dinov3", [], lambda n=name, d=depth: facebook_dinov3(n, d)
    yield ("DINOv3 S/16, key bias", "transformers", None, "dinov3", [], lambda: hf_dinov3(384, 6, key_bias=True))
    yield ("DINOv3 S/16, no biases", "transformers", None, "dinov3", [],
           lambda: hf_dinov3(384, 6, query_bias=False, value_bias=False))
    yield "DINOv3 S/16, no registers", "transformers", None, "dinov3", [], lambda: hf_dinov3(384, 6, registers=0)
    yield "DINOv3 S/16, rope_theta 30", "transformers", None, "dinov3", [], lambda: hf_dinov3(384, 6, rope_theta=30.0)
    yield "DINOv3 S/16, heads of 128", "transformers", None, "dinov3", [], lambda: hf_dinov3(384, 3)
    yield ("DINOv3 S+/16, state_dict", "transformers", None, "dinov3", ["--heads", "6"],
           lambda: hf_dinov3(384, 6, gated=True, save="state"))
    for word, heads in [("small", 6), ("base", 12), ("large", 16), ("giant", 24)]:
        yield (f"LingBot-Vision {word}", "timm", None, "dinov3", [],
               lambda w=word: timm_dinov3(f"vit_{w}_patch16_lingbot", DEPTH)[:4])
    for size in CONVNEXT:
        name = f"dinov3-convnext-{size}"
        yield f"DINOv3 ConvNeXt {size}", "transformers", None, name, [], lambda s=size: hf_convnext(s)
        yield f"DINOv3 ConvNeXt {size}", "timm", None, name, [], lambda s=size: timm_convnext(s)[:4]
        yield f"DINOv3 ConvNeXt {size}", "facebook names", None, name, [], lambda s=size: facebook_convnext(s)
    yield ("Depth Anything S", "transformers", "transformers", "dinov2", [],
           lambda: hf_dinov2(384, 6, depth_anything=True))
    yield ("Depth Anything S", "original names", "timm", "dinov2", ["--heads", "6"],
           lambda: facebook_dinov2(384, 6, prefix="pretrained."))
    for label, width, heads, patch in [("B/32", 768, 12, 32), ("B/16", 768, 12, 16), ("L/14", 1024, 16, 14),
                                       ("H/14", 1280, 16, 14), ("g/14", 1408, 16, 14), ("bigG/14", 1664, 16, 14)]:
        for act in ("quick_gelu", "gelu"):
            yield (f"CLIP {label} {act}", "transformers", "transformers", "clip", [],
                   lambda w=width, h=heads, p=patch, a=act: hf_clip(w, h, p, a))
    yield ("CLIP L/14@336 quick_gelu", "transformers", "transformers", "clip", [],
           lambda: hf_clip(1024, 16, 14, "quick_gelu", grid=24))
    yield ("CLIP B/16 vision only", "transformers", "transformers", "clip", [],
           lambda: hf_clip(768, 12, 16, "quick_gelu", True))
    for name in ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"]:
        for quick in (True, False):
            yield (f"CLIP {name[4:]} {'quick_gelu' if quick else 'gelu'}", "open_clip", "timm", "clip", [],
                   lambda n=name, q=quick: open_clip_model(n, q))
    yield ("CLIP B-16 quick_gelu", "no config", "timm", "clip", ["--heads", "12", "--activation", "quick-gelu"],
           lambda: open_clip_model("ViT-B-16", True, config=False))
    for name, patch in [("vit_base_patch32_clip_224", 32), ("vit_base_patch16_clip_224", 16),
                        ("vit_base_patch16_clip_quickgelu_224", 16), ("vit_large_patch14_clip_quickgelu_224", 14),
                        ("vit_large_patch14_clip_quickgelu_336", 14), ("vit_huge_patch14_clip_quickgelu_224", 14),
                        ("vit_huge_patch14_clip_224", 14), ("vit_giant_patch14_clip_224", 14),
                        ("vit_gigantic_patch14_clip_224", 14)]:
        yield f"CLIP {name}", "timm", "timm", "clip", [], lambda n=name, p=patch: timm_model(n, p, num_classes=64)
    for label, width, heads, patch in [("B/32", 768, 12, 32), ("B/16", 768, 12, 16), ("L/16", 1024, 16, 16),
                                       ("so400m/14", 1152, 16, 14), ("so400m/16", 1152, 16, 16),
                                       ("g-opt/16", 1536, 16, 16)]:
        yield (f"SigLIP {label}", "transformers", "transformers", "siglip", [],
               lambda w=width, h=heads, p=patch: hf_siglip(w, h, p))
    yield ("SigLIP B/16 vision only", "transformers", "transformers", "siglip2", [],
           lambda: hf_siglip(768, 12, 16, True))
    for name, patch in [("vit_base_patch32_siglip_256", 32), ("vit_base_patch16_siglip_224", 16), ("vit_large_patch16_siglip_256", 16),
                        ("vit_large_patch16_siglip_512", 16), ("vit_so400m_patch14_siglip_384", 14),
                        ("vit_so400m_patch16_siglip_256", 16), ("vit_giantopt_patch16_siglip_256", 16)]:
        yield f"SigLIP {name}", "timm", "timm", "siglip", [], lambda n=name, p=patch: timm_model(n, p)
    for name in ["ViT-B-16-SigLIP", "ViT-L-16-SigLIP-256", "ViT-SO400M-14-SigLIP", "ViT-B-16-SigLIP2",
                 "ViT-L-16-SigLIP2-256", "ViT-SO400M-14-SigLIP2", "ViT-SO400M-16-SigLIP2-256"]:
        backbone = "siglip2" if "SigLIP2" in name else "siglip"
        yield f"SigLIP {name[4:]}", "open_clip", "timm", backbone, [], lambda n=name: open_clip_model(n)
    texts = ["--text-space"]
    for label, width, heads, patch in [("B/16", 768, 12, 16), ("so400m/14", 1152, 16, 14)]:
        yield (f"SigLIP {label} text space", "transformers", "transformers", "siglip", texts,
               lambda w=width, h=heads, p=patch: hf_siglip(w, h, p, text_space=True))
    yield ("SigLIP vit_base_patch16_siglip_224 text space", "timm", "timm", "siglip", texts,
           lambda: timm_model("vit_base_patch16_siglip_224", 16, text_space=True))
    for name in ["ViT-B-16-SigLIP", "ViT-SO400M-16-SigLIP2-256"]:
        yield (f"SigLIP {name[4:]} text space", "open_clip", "timm", "siglip", texts,
               lambda n=name: open_clip_model(n, text_space=True))


def worst(loftup, build, backbone, options, positions):
    save, forward, side, patch = build()
    differences = []
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        save(directory / "model")
        for height, width in [(side, side), (side + 2 * patch, side + 5 * patch)]:
            image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))
            np.save(directory / "image.npy", image.numpy())
            bundle, out = directory / f"{height}x{width}.loftup", directory / "out.npy"
            for command in (
                [loftup, "convert", "--backbone", backbone, "--backbone-weights", directory / "model/model.safetensors",
                 "--size", f"{width}x{height}", *(["--positions", positions] if positions else []), *options, "--out", bundle],
                [loftup, "run", bundle, "--image", directory / "image.npy", "--out", out],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr.strip().splitlines()[-1])
            with torch.no_grad():
                expected = forward(image).numpy()
            session = onnxruntime.InferenceSession(bundle / "backbone.onnx", providers=["CPUExecutionProvider"])
            errors = []
            for found in (np.load(out), session.run(None, {"image": image.numpy()})[0]):
                if found.shape != expected.shape:
                    raise RuntimeError(f"{found.shape} expected {expected.shape}")
                if not np.isfinite(found).all():
                    raise RuntimeError("features are not finite")
                errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
            differences.append(max(errors))
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loftup", help="the loftup binary")
    parser.add_argument("--only", nargs="+", default=[""], help="only models with one of these in their name or source")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    torch.backends.mha.set_fastpath_enabled(False)
    failed = 0
    rows = []
    print(f"{'model':46} {'source':16} {'trained size':>12} {'other size':>12}")
    for label, source, positions, backbone, options, build in models():
        if not any(text in f"{label} {source}" for text in args.only):
            continue
        try:
            differences = worst(args.loftup, build, backbone, options, positions)
            failure = " FAILED" if max(differences) > LIMIT else ""
            cells = [f"{d:.1e}" for d in differences]
        except Exception as error:
            failure, cells = f" FAILED: {error}", ["", ""]
        print(f"{label:46} {source:16} {cells[0]:>12} {cells[1]:>12}{failure}", flush=True)
        rows.append([label, source, positions or ("none" if "ConvNeXt" in label else "rotary"), cells[0], cells[1] + failure])
        failed += bool(failure)
        if args.out:
            lines = [["model", "names", "positions", "trained size", "other size"], ["---"] * 5, *rows]
            args.out.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    print(f"{len(rows)} models, {failed} failed")
    sys.exit(1 if failed or not rows else 0)


if __name__ == "__main__":
    main()
