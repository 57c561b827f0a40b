#!/usr/bin/env python3
"""Writes the small real checkpoints that models/import/tests/checkpoint.rs reads.

    python tools/make_checkpoint_fixtures.py models/import/tests/data

Made with PyTorch 2.7.1, NumPy 2, safetensors and OmegaConf 2.4; `later` and `openai_clip` with
PyTorch 2.15.0 and safetensors 0.8.0. The files are committed; this is needed only to change them.
Every number in them follows from `values`, so that the tests know what to expect without reading a
second file.
"""

import argparse
import collections
import pathlib
import sys
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn


def values(seed, *shape, dtype=torch.float32):
    """Element i is ((7 i + 13 seed) mod 31 - 15) / 8: exact in every floating-point type."""
    n = int(np.prod(shape, dtype=np.int64))
    i = torch.arange(n, dtype=torch.int64)
    return (((7 * i + 13 * seed) % 31 - 15).double() / 8).to(dtype).reshape(shape)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.scale: float = 0.5
        self.depth: int = 3
        self.gain = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return self.norm(self.attn(x)) * self.scale * self.gain


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False)
        self.blocks = nn.Sequential(Block(), Block())
        self.list = nn.ModuleList([nn.LayerNorm(4)])
        self.register_buffer("ids", torch.arange(4))

    def forward(self, x):
        x = self.blocks(self.conv1(x).mean((2, 3)))
        for norm in self.list:
            x = norm(x)
        return x


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Visual()
        self.text_projection = nn.Parameter(torch.zeros(4, 2))
        self.names = ["a", "b"]

    def forward(self, x):
        return self.visual(x) @ self.text_projection


def filled(module):
    """Sets each floating-point entry of the state_dict, in order, to its own values."""
    with torch.no_grad():
        for seed, tensor in enumerate(module.state_dict().values()):
            if tensor.is_floating_point():
                tensor.copy_(values(seed, *tensor.shape))
    return module.eval()


def plain_tensors():
    return collections.OrderedDict(
        [("pos_embed", values(0, 1, 3, 4)), ("blocks.0.weight", values(1, 5, 4)),
         ("blocks.0.bias", values(2, 5)), ("scale", values(3)), ("empty", values(4, 0, 4)),
         ("num_batches_tracked", torch.tensor(7)), ("mask", torch.tensor([True, False]))])


class OpenAiClip(nn.Module):
    """The image tower of OpenAI's CLIP, and the three numbers that its archives have as buffers."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.attn = nn.MultiheadAttention(width, 1)
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mlp = nn.Sequential(collections.OrderedDict(
                c_fc=nn.Linear(width, width), gelu=nn.GELU(), c_proj=nn.Linear(width, width)))

        def forward(self, x):
            y = self.ln_1(x)
            x = x + self.attn(y, y, y)[0]
            return x + self.mlp(self.ln_2(x))

    class Transformer(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.resblocks = nn.Sequential(OpenAiClip.Block(width))

        def forward(self, x):
            return self.resblocks(x)

    class Visual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 2, 2, bias=False)
            self.class_embedding = nn.Parameter(torch.zeros(width))
            self.positional_embedding = nn.Parameter(torch.zeros(5, width))
            self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
            self.transformer = OpenAiClip.Transformer(width)
            self.proj = nn.Parameter(torch.zeros(width, 2))

        def forward(self, x):
            x = self.conv1(x).flatten(2).permute(2, 0, 1)
            x = torch.cat([self.class_embedding + torch.zeros_like(x[:1]), x]) + self.positional_embedding[:, None]
            return self.ln_post(self.transformer(self.ln_pre(x)))[0] @ self.proj

    def __init__(self):
        super().__init__()
        self.visual = self.Visual(4)
        for name, value in (("input_resolution", 4), ("context_length", 77), ("vocab_size", 10)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x):
        return self.visual(x)


def main(out):
    from omegaconf import OmegaConf

    plain = plain_tensors()
    torch.save(plain, out / "plain.pth")
    # 21 characters: a length that some zip readers reject.
    torch.save(plain, out / "twenty_one_characters.bin")
    torch.save(plain, out / "protocol4.pt", pickle_protocol=4)
    torch.save(plain, out / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"module." + k: v for k, v in plain.items()}, out / "parallel.pth")
    save_file(plain, out / "plain.safetensors", metadata={"format": "pt"})

    types = {name: values(i, 3, 4, dtype=getattr(torch, name)) for i, name in
             enumerate(["float32", "float16", "bfloat16", "float64"])}
    for name in ["int64", "int32", "int16", "int8", "uint8", "bool", "uint16"]:
        types[name] = torch.ones(3, dtype=getattr(torch, name))
    torch.save(types, out / "types.pt")
    save_file(types, out / "types.safetensors")
    torch.save({"w": values(0, 4).to(torch.float8_e4m3fn)}, out / "float8.pt")
    torch.save({"w": values(0, 4).to(torch.complex64)}, out / "complex.pt")
    save_file({"w": values(0, 4).to(torch.float8_e4m3fn)}, out / "float8.safetensors")

    base, cube = values(0, 6, 4), values(1, 2, 3, 4)
    torch.save({"base": base, "transposed": base.t(), "row": base[2], "column": base[:, 1],
                "every_second": base[1::2, ::2], "tied": base,
                "permuted": cube.permute(2, 0, 1),
                "channels_last": values(2, 2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
                "half_view": values(3, 4, 4, dtype=torch.float16)[:, 1:3]}, out / "strided.pt")
    torch.save({"w": values(0, 1, 4).expand(100, 4)}, out / "expanded.pt")

    parameter, tagged = nn.Parameter(values(0, 2, 3)), values(1, 4)
    marked = nn.Parameter(values(2, 3))
    tagged.note, marked.no_decay = "a tensor with an attribute", True
    torch.save({"parameter": parameter, "tagged": tagged, "marked": marked}, out / "parameters.pt")

    model = filled(Clip())
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    filled(model)
    config = OmegaConf.create({"lr": 1e-3, "sizes": [1, 2, {"a": None}], "name": "${lr}"})
    torch.save({"epoch": 3, "global_step": 1 << 40, "pytorch-lightning_version": "2.5.1",
                "state_dict": model.state_dict(), "loss": torch.tensor(0.25),
                "loops": {"fit_loop": {"state_dict": {}, "progress": [0, 1.5, None, True, (1, "x")]}},
                "callbacks": {"ModelCheckpoint{'monitor': None}": {
                    "best_model_score": torch.tensor(0.5), "dirpath": pathlib.PurePosixPath("/x"),
                    "best_k_models": {}}},
                "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [],
                "hyper_parameters": {"config": config, "args": argparse.Namespace(lr=0.1, layers=[1, 2])},
                "rng": {"seed": 1 << 70, "bytes": b"\x00\xff", "numpy": np.random.RandomState(1).get_state()[2:],
                        "array": np.arange(3.0), "scalar": np.float64(0.5), "torch": torch.get_rng_state()[:8].clone()},
                "dtype": torch.float16, "device": torch.device("cpu"), "size": torch.Size([1, 2]),
                "set": {1}, "counter": collections.Counter("aab"), "version": torch.__version__},
               out / "training.ckpt")

    scripted = torch.jit.script(filled(Clip()).half())
    torch.jit.save(scripted, out / "script_half.pt")
    traced = torch.jit.trace(filled(Clip()), torch.ones(1, 3, 4, 4))
    torch.jit.save(traced, out / "traced.pt")

    torch.save(nn.Linear(2, 2), out / "whole_module.pt")

    later(out)
    openai_clip(out)


def openai_clip(out):
    traced = torch.jit.trace(filled(OpenAiClip()), torch.ones(1, 3, 4, 4))
    torch.jit.save(traced, out / "openai_clip.pt")


def repacked(source, target, rename, compression=zipfile.ZIP_STORED):
    """Repacks an archive, as is sometimes done by hand."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(rename(name))
            entry.compress_type = compression
            new.writestr(entry, old.read(name))


def later(out):
    """Unusual files."""
    plain = plain_tensors()
    float8 = values(0, 4).to(torch.float8_e4m3fn)
    unusual = {
        "good": values(0, 2, 3),
        "w": values(0, 1, 4).expand(100, 4),
        "float8": float8,
        "complex": values(1, 4).to(torch.complex64),
        "conjugated": torch.conj(values(1, 4).to(torch.complex64)),
        "negated": torch._neg_view(values(1, 4)),
        "quantized": torch.quantize_per_tensor(values(2, 2, 4), 0.125, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(),
        "sparse_rows": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(3, 5, device="meta"),
        "bits": torch.arange(4, dtype=torch.uint8).view(torch.bits8),
        "bool": torch.tensor([True, False]),
        "empty": values(3, 0),
        "last": values(4, 3),
    }
    torch.save(unusual, out / "unusual.pt")
    old = {name: tensor for name, tensor in unusual.items() if name not in ("float8", "bits")}
    torch.save(old, out / "unusual_legacy.pt", _use_new_zipfile_serialization=False)
    save_file({"good": values(0, 2, 3), "float8": float8, "complex": values(1, 4).to(torch.complex64),
               "bool": torch.tensor([True]), "last": values(4, 3)}, out / "unusual.safetensors")

    base = values(0, 6, 4)
    torch.save({"base": base, "transposed": base.t(), "row": base[2], "half": values(1, 3).half(),
                "count": torch.tensor(7)}, out / "views_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(plain, out / "legacy_protocol4.pth", pickle_protocol=4, _use_new_zipfile_serialization=False)

    wrapped = {"pos_embed": "_fsdp_wrapped_module.module.pos_embed",
               "blocks.0.weight": "_orig_mod.blocks.0._orig_mod.weight",
               "blocks.0.bias": "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.bias"}
    torch.save({wrapped.get(k, k): v for k, v in plain.items()}, out / "wrapped.pth")
    torch.save({"a.w": values(0, 2), "a._orig_mod.w": values(1, 2)}, out / "collision.pth")
    torch.save({"student": {"w": values(0, 2)}, "teacher": {"w": values(1, 2)}, "epoch": 3}, out / "two_models.pth")
    torch.save({"model": {"vision": {"w": values(0, 2)}, "llm": {"layers": {"w": values(1, 2)}}, "step": 1},
                "optimizer": {"state": {0: {"exp_avg": values(2, 2)}}}}, out / "nested.pth")

    repacked(out / "plain.pth", out / "deflated.pth", lambda name: name, zipfile.ZIP_DEFLATED)
    repacked(out / "plain.pth", out / "no_root.pth", lambda name: name.split("/", 1)[1])
    repacked(out / "plain.pth", out / "outer_root.pth", lambda name: "outer/" + name)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
