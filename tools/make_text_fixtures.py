#!/usr/bin/env python3
"""Writes models/import/tests/data/text_encoders.json and pooling_heads.json: embeddings of small text
encoders and outputs of SigLIP's pooling head, computed by the libraries whose tensor names are read.

Usage: make_text_fixtures.py        needs: numpy torch transformers open_clip_torch timm

Weights are not stored: element i of a model, counted over its tensors in the listed order, is made
from hash(i), which the test repeats.
"""

import json
import pathlib

import numpy as np
import open_clip
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection
from timm.models.vision_transformer import VisionTransformer
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

OUT = pathlib.Path(__file__).parent.parent / "models/import/tests/data"
GRID, PATCH = 3, 4
WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT, DIM = 16, 2, 2, 40, 9, 8
# The last token of the vocabulary ends a text, as in CLIP's.
TEXTS = [[38, 5, 39], [38, 11, 2, 7, 39], [38, 3, 3, 9, 20, 21, 6, 1, 39]]
# SigLIP reads padding (token 1).
PADDED = [[5, 17, 1, 1, 1, 1, 1, 1, 1], [11, 2, 7, 30, 39, 8, 4, 1, 1], [3, 3, 9, 20, 21, 6, 12, 35, 1]]


def values(first, count):
    """Floats in [0, 1) from the indices first, first + 1, ..."""
    x = (np.arange(first, first + count, dtype=np.uint64) + 1) * 0x9E3779B9 & 0xFFFFFFFF
    for shift, factor in ((15, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ x >> np.uint64(shift)) * factor) & 0xFFFFFFFF
    x = (x ^ x >> np.uint64(16)) >> np.uint64(8)
    return x.astype(np.float32) / np.float32(1 << 24)


def is_text(name):
    return not name.startswith(("visual", "vision")) and "position_ids" not in name and "logit" not in name


def fill(model, wanted=is_text):
    """Sets the weights, and returns names and shapes of those that are wanted: of the text encoder."""
    state, tensors, first = model.state_dict(), [], 0
    for name, tensor in state.items():
        if not wanted(name) or not tensor.is_floating_point() or "attn_mask" in name:
            continue
        v = values(first, tensor.numel()) - np.float32(0.5)
        first += tensor.numel()
        norm = tensor.dim() == 1 and name.endswith("weight")
        v = v * np.float32(0.5) + np.float32(1) if norm else v * np.float32(0.75)
        state[name] = torch.from_numpy(v.reshape(tensor.shape))
        tensors.append([name, list(tensor.shape)])
    model.load_state_dict(state)
    model.eval()
    return tensors


def padded(ids):
    return torch.tensor([t + [0] * (CONTEXT - len(t)) for t in ids])


def case(name, activation, model, ids, encode):
    tensors = fill(model)
    with torch.no_grad():
        out = encode(padded(ids)).numpy()
    return dict(
        name=name, activation=activation, heads=HEADS, ids=ids, tensors=tensors,
        embeddings=[rounded(row) for row in out],
    )


def open_clip_case(name, activation, custom, quick, **text):
    vision = dict(image_size=32, layers=1, width=64, patch_size=32)
    text = dict(context_length=CONTEXT, vocab_size=VOCABULARY, width=WIDTH, heads=HEADS, layers=LAYERS, **text)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(DIM, vision, text, quick_gelu=quick)
    ids = PADDED if text.get("no_causal_mask") else TEXTS
    return case(name, activation, model, ids, lambda ids: model.encode_text(ids))


def hf_text(kind, **more):
    return dict(
        hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, **more,
    )


def rounded(values):
    return [float(f"{x:.6g}") for x in values]


def pooling_case(name, activation, model, prefix, tokens_of, head):
    """The head of an image, and of each of its tokens alone. The image follows the weights."""
    tensors = fill(model, lambda name: "position_ids" not in name)
    first = sum(int(np.prod(shape)) for _, shape in tensors)
    side = GRID * PATCH
    image = torch.from_numpy(values(first, 3 * side * side).reshape(1, 3, side, side) * 2 - 1)
    with torch.no_grad():
        tokens = tokens_of(image)
        pooled = head(tokens)[0]
        each = head(tokens.transpose(0, 1))
    return dict(
        name=name, activation=activation, heads=HEADS, side=side,
        tensors=[[prefix + name, shape] for name, shape in tensors],
        pooled=rounded(pooled), each=[rounded(row) for row in each],
    )


def pooling_heads():
    vision = SiglipVisionModel(SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=1, num_attention_heads=HEADS,
        image_size=GRID * PATCH, patch_size=PATCH,
    ))
    its = getattr(vision, "vision_model", vision)
    trunk = VisionTransformer(
        img_size=GRID * PATCH, patch_size=PATCH, embed_dim=WIDTH, depth=1, num_heads=HEADS, mlp_ratio=1.5,
        class_token=False, global_pool="map", num_classes=0,
    )
    return [
        pooling_case("transformers SiglipVisionModel", "gelu-tanh", vision, "vision_model.",
                     lambda image: vision(image).last_hidden_state, its.head),
        pooling_case("timm in open_clip", "gelu", trunk, "visual.trunk.", trunk.forward_features, trunk.attn_pool),
    ]


def write(name, cases):
    path = OUT / name
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    path.write_text(f"[\n{lines}\n]\n")
    print(path, path.stat().st_size, "bytes")


def main():
    torch.manual_seed(0)
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=32)
    clip = hf_text("clip", eos_token_id=39, bos_token_id=38, pad_token_id=0)
    with_projection = CLIPTextModelWithProjection(CLIPTextConfig(projection_dim=DIM, **clip))
    whole = CLIPModel(CLIPConfig(text_config=clip, vision_config=vision, projection_dim=DIM))
    siglip = SiglipModel(SiglipConfig(text_config=hf_text("siglip", projection_size=DIM), vision_config=vision))
    last = dict(no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs=dict(eps=1e-6))
    cases = [
        open_clip_case("open_clip CLIP", "gelu", False, False),
        open_clip_case("open_clip CLIP, quickgelu", "quick-gelu", False, True),
        open_clip_case("open_clip CustomTextCLIP", "gelu", True, False),
        open_clip_case("open_clip SigLIP", "gelu-tanh", True, False, act_kwargs=dict(approximate="tanh"), **last),
        case("transformers CLIPTextModelWithProjection", "quick-gelu", with_projection, TEXTS,
             lambda ids: with_projection(ids).text_embeds),
        case("transformers CLIPModel", "quick-gelu", whole, TEXTS,
             lambda ids: whole.text_projection(whole.text_model(ids).pooler_output)),
        case("transformers SiglipModel", "gelu-tanh", siglip, PADDED,
             lambda ids: siglip.text_model(ids).pooler_output),
    ]
    write("text_encoders.json", cases)
    write("pooling_heads.json", pooling_heads())


if __name__ == "__main__":
    main()
