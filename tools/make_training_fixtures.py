#!/usr/bin/env python3
"""Writes the reference of one training step: host/train/tests/data/step.safetensors.

The upsampler and the two losses are reimplemented here in PyTorch, with image layout,
after their description; nothing is shared with the Rust code but the names of the weights.

    python3 tools/make_training_fixtures.py        (needs torch and safetensors)
"""
import math
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

D, GRID_FREQUENCIES, FREQUENCIES, HEADS, LAYERS = 4, 5, 4, 4, 2
E = D + 4 * GRID_FREQUENCIES
BATCH, SIZE, TOKENS, TO = 2, 8, 4, 3
WINDOW = SIZE // TOKENS


def weights():
    """Random weights, without trivial norms or zero biases."""
    channels = 10 * FREQUENCIES + 3
    shapes = {
        "channelnorm.norm": [D],
        "upsampler.first_conv.0.norm": [channels],
        "upsampler.first_conv.1": [E, channels, 3, 3],
        "upsampler.first_conv.2": [E],
        "upsampler.first_conv.4": [E, E, 3, 3],
        "upsampler.first_conv.5": [E],
        "upsampler.ca_transformer.norm": [E],
        "upsampler.final_conv.0": [D, E, 1, 1],
        "upsampler.final_conv.1": [D],
    }
    for i in range(LAYERS):
        layer = f"upsampler.ca_transformer.layers.{i}"
        shapes |= {
            f"{layer}.0.norm_q": [E],
            f"{layer}.0.norm_kv": [E],
            f"{layer}.0.attention.out_proj": [E, E],
            f"{layer}.1.net.0": [E],
            f"{layer}.1.net.1": [D, E],
            f"{layer}.1.net.4": [E, D],
        }
    p = {}
    for name, shape in shapes.items():
        spread = 1.5 / math.sqrt(max(1, math.prod(shape[1:])))
        mean = 1.0 if len(shape) == 1 else 0.0
        p[f"{name}.weight"] = mean + (0.2 if len(shape) == 1 else spread) * torch.randn(shape)
        p[f"{name}.bias"] = 0.2 * torch.randn(shape[0])
    for i in range(LAYERS):
        name = f"upsampler.ca_transformer.layers.{i}.0.attention.in_proj"
        p[f"{name}_weight"] = torch.randn(3 * E, E) * 1.5 / math.sqrt(E)
        p[f"{name}_bias"] = 0.2 * torch.randn(3 * E)
    p["upsampler.fourier_feat.1.biases"] = torch.randn(2, 5, FREQUENCIES)
    p["upsampler.lr_pe.biases"] = torch.randn(2, 2, GRID_FREQUENCIES)
    p["downsampler.attention.weight"] = torch.randn(1, D)
    p["downsampler.attention.bias"] = torch.randn(1)
    p["downsampler.w"] = 1 + 0.3 * torch.randn(WINDOW * WINDOW)
    p["downsampler.b"] = 0.3 * torch.randn(WINDOW * WINDOW)
    p["uncertainty.weight"] = 0.2 * torch.randn(1, D)
    p["uncertainty.bias"] = 0.1 * torch.randn(1)
    stats = {}
    for index in (2, 5):
        stats[f"upsampler.first_conv.{index}.running_mean"] = 0.3 * torch.randn(E)
        stats[f"upsampler.first_conv.{index}.running_var"] = 0.5 + torch.rand(E)
    return p, stats


def channel_norm(x, p, name, eps):
    x = F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]], p[f"{name}.weight"], p[f"{name}.bias"], eps)
    return x.permute(0, 3, 1, 2)


def fourier(channels, biases, count):
    """(B,c,H,W) to (B,2*c*count,H,W), frequency-major."""
    b, c, h, w = channels.shape
    frequencies = torch.exp(torch.linspace(-2, 10, count))
    x = channels.unsqueeze(1) * frequencies.view(1, count, 1, 1, 1)
    biases = biases.reshape(2, count, c)
    shifted = [x + biases[i].view(1, count, c, 1, 1) for i in range(2)]
    return torch.cat([shifted[0].sin().reshape(b, -1, h, w), shifted[1].cos().reshape(b, -1, h, w)], 1)


def grid(b, h, w):
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    return torch.stack([y, x]).expand(b, 2, h, w)


def upsample(p, stats, lr, image, train, moments=None):
    b, _, h, w = image.shape
    lr = channel_norm(lr, p, "channelnorm.norm", 1e-5)
    low, high = image.amin((0, 2, 3), keepdim=True), image.amax((0, 2, 3), keepdim=True)
    image = (image - low) / (high - low).clamp_min(1e-4) - 0.5
    x = torch.cat([grid(b, h, w), image], 1)
    x = torch.cat([fourier(x, p["upsampler.fourier_feat.1.biases"], FREQUENCIES), image], 1)
    name = "upsampler.first_conv"
    x = channel_norm(x, p, f"{name}.0.norm", 1e-5)
    for index in (1, 4):
        x = F.conv2d(x, p[f"{name}.{index}.weight"], p[f"{name}.{index}.bias"], padding=1)
        norm = f"{name}.{index + 1}"
        mean, var = stats[f"{norm}.running_mean"].clone(), stats[f"{norm}.running_var"].clone()
        x = F.relu(F.batch_norm(x, mean, var, p[f"{norm}.weight"], p[f"{norm}.bias"], train, 0.1, 1e-5))
        if moments is not None:
            moments[f"{norm}.running_mean"], moments[f"{norm}.running_var"] = mean, var
    tokens = torch.cat([lr, fourier(grid(b, *lr.shape[2:]), p["upsampler.lr_pe.biases"], GRID_FREQUENCIES)], 1)
    kv, q = tokens.flatten(2).transpose(1, 2), x.flatten(2).transpose(1, 2)
    for i in range(LAYERS):
        layer = f"upsampler.ca_transformer.layers.{i}"

        def norm(x, part):
            return F.layer_norm(x, [E], p[f"{layer}.{part}.weight"], p[f"{layer}.{part}.bias"])

        k = norm(kv, "0.norm_kv").transpose(0, 1)
        attended, _ = F.multi_head_attention_forward(
            norm(q, "0.norm_q").transpose(0, 1), k, k, E, HEADS,
            p[f"{layer}.0.attention.in_proj_weight"], p[f"{layer}.0.attention.in_proj_bias"],
            None, None, False, 0.0,
            p[f"{layer}.0.attention.out_proj.weight"], p[f"{layer}.0.attention.out_proj.bias"],
            need_weights=False)
        q = attended.transpose(0, 1) + q
        inner = F.gelu(F.linear(norm(q, "1.net.0"), p[f"{layer}.1.net.1.weight"], p[f"{layer}.1.net.1.bias"]))
        q = F.linear(inner, p[f"{layer}.1.net.4.weight"], p[f"{layer}.1.net.4.bias"]) + q
    q = F.layer_norm(q, [E], p["upsampler.ca_transformer.norm.weight"], p["upsampler.ca_transformer.norm.bias"])
    x = q.transpose(1, 2).reshape(b, E, h, w)
    x = F.conv2d(x, p["upsampler.final_conv.0.weight"], p["upsampler.final_conv.0.bias"])
    return channel_norm(x, p, "upsampler.final_conv.1", 1e-6)


def view(x, pad, zoom, down, right, mirrored):
    h, w = x.shape[2:]
    x = F.pad(x, [pad] * 4, mode="reflect")
    if zoom > 1:
        x = F.interpolate(x, scale_factor=zoom, mode="bilinear")
    x = x[:, :, down:down + h, right:right + w]
    return x.flip(3) if mirrored else x


def project(x, matrix):
    return torch.einsum("bchw,cd->bdhw", x, matrix)


def blur(x):
    bell = torch.exp(-0.5 * torch.arange(-2.0, 3.0) ** 2)
    bell = bell / bell.sum()
    c = x.shape[1]
    x = F.pad(x, [2] * 4, mode="reflect")
    return F.conv2d(x, torch.outer(bell, bell).expand(c, 1, 5, 5), groups=c)


def downsample(p, x, kept):
    b, c, _, _ = x.shape
    windows = F.unfold(blur(x), WINDOW, stride=WINDOW)
    windows = windows.reshape(b, c, WINDOW * WINDOW, TOKENS, TOKENS).permute(0, 3, 4, 2, 1)
    logits = F.linear(windows, p["downsampler.attention.weight"], p["downsampler.attention.bias"]).squeeze(-1)
    logits = logits * kept * p["downsampler.w"] + p["downsampler.b"]
    return torch.einsum("bhwpc,bhwp->bchw", windows, logits.softmax(-1))


def variation(x):
    down, right = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
    return (down.square().sum() + right.square().sum()) / x.numel()


def refine(x, masks, alpha):
    """masks: for each image a list of (H,W) booleans."""
    x = x.clone()
    for image, its in zip(x, masks):
        for mask in its:
            mean = image[:, mask].mean(1, keepdim=True)
            image[:, mask] = alpha * mean + (1 - alpha) * image[:, mask]
    return x


def cosines(x):
    x = F.normalize(x.flatten(2), dim=1)
    return x.transpose(1, 2) @ x


def reconstruction(p, features, views, with_variation):
    total, seen_variation = 0.0, torch.zeros(())
    for i, v in enumerate(views):
        seen = view(features, *v["jitter"])
        if with_variation and i == 0:
            seen_variation = variation(project(seen, v["projection"]).square().sum(1, keepdim=True))
        down = project(downsample(p, seen, v["kept"]), v["projection"])
        weight = p["uncertainty.weight"].view(1, D, 1, 1)
        s = (F.conv2d(v["lr"], weight, p["uncertainty.bias"]) + 0.1).exp().clamp_min(1e-4)
        square = (down - project(v["lr"], v["projection"])).square()
        total = total + ((square / (2 * s ** 2) + s.log()).mean() / len(views)).clamp_min(0)
    return total, seen_variation


def projection():
    matrix = torch.randn(D, TO)
    return matrix / matrix.norm(dim=0, keepdim=True)


def random_masks():
    masks = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.bool)
    masks[:, 0, 1:5, 2:7] = True
    masks[:, 1, 3:8, 0:4] = True
    masks[1, 2] = torch.rand(SIZE, SIZE) > 0.6
    return masks, [[m for m in its if m.any()] for its in masks]


def main():
    torch.manual_seed(4)
    torch.set_num_threads(1)
    p, stats = weights()
    out = {name: t.clone() for name, t in (p | stats).items()}
    image, lr = torch.randn(BATCH, 3, SIZE, SIZE), torch.randn(BATCH, D, TOKENS, TOKENS)
    views = []
    for i, jitter in enumerate([(2, 1.0, 3, 0, True), (2, 1.125, 4, 1, False)]):
        kept = (torch.rand(BATCH, TOKENS, TOKENS, 1) > 0.2).float()
        views.append({"jitter": jitter, "lr": torch.randn(BATCH, D, TOKENS, TOKENS), "kept": kept, "projection": projection()})
        out |= {f"view{i}.lr": views[i]["lr"], f"view{i}.kept": kept.flatten(), f"view{i}.projection": views[i]["projection"],
                f"view{i}.jitter": torch.tensor([float(x) for x in jitter])}
    masks, mask_lists = random_masks()
    last = projection()
    out |= {"image": image, "lr": lr, "masks": masks.float(), "projection": last}

    def finish(stage, losses):
        for t in p.values():
            t.grad = None
        losses["loss"].backward()
        for name, value in losses.items():
            out[f"{stage}.losses.{name}"] = value.detach().reshape(1)
        for name, t in p.items():
            out[f"{stage}.gradients.{name}"] = torch.zeros_like(t) if t.grad is None else t.grad

    for t in p.values():
        t.requires_grad_()
    # Stage 1.
    moments = {}
    features = upsample(p, stats, lr, image, True, moments)
    out |= {f"remembered.{name}": t for name, t in moments.items()}
    rec, tv = reconstruction(p, features, views, True)
    target = refine(F.interpolate(lr, (SIZE, SIZE), mode="bicubic"), mask_lists, 0.8)
    mask_bicubic = (project(features, last) - project(target, last)).square().mean()
    finish("stage1", {"loss": rec + 0.001 * tv + mask_bicubic, "reconstruction": rec, "total_variation": tv, "mask_bicubic": mask_bicubic})

    # Stage 2: crops of an image of twice the size; the teacher has the same weights.
    crops = []
    for i, (top, left) in enumerate([(2, 4), (0, 1)]):
        crop_image, crop_lr = torch.randn(BATCH, 3, SIZE, SIZE), torch.randn(BATCH, D, TOKENS, TOKENS)
        with torch.no_grad():
            # Each image separately, with its own color range.
            seen = [upsample(p, stats, crop_lr[b:b + 1], crop_image[b:b + 1], False) for b in range(BATCH)]
            seen = refine(torch.cat(seen), mask_lists, 0.5)
            seen = F.interpolate(seen, (4, 4), mode="bilinear")[:, :, 1:3, 1:3]
        crops.append((top + 1, left + 1, seen))
        out |= {f"crop{i}.image": crop_image, f"crop{i}.lr": crop_lr, f"crop{i}.place": torch.tensor([float(top), float(left)])}
    features = upsample(p, stats, lr, image, True)
    rec, _ = reconstruction(p, features, views, False)
    tv = variation(features)
    affinity = 0.0
    for top, left, seen in crops:
        mine = features[:, :, top:top + 2, left:left + 2]
        affinity = affinity + F.mse_loss(cosines(mine), cosines(seen)) / len(crops)
    finish("stage2", {"loss": rec + 0.05 * tv + 20 * affinity, "reconstruction": rec, "total_variation": tv, "affinity": affinity})

    # Optimizers on given gradients.
    start, gradients = torch.randn(7, 5), torch.randn(10, 7, 5) * torch.logspace(-6, 1, 5)
    out |= {"optimizer.start": start, "optimizer.gradients": gradients}
    for name, make in {
        "nadam": lambda w: torch.optim.NAdam(w, lr=1e-2),
        "nadam_decay": lambda w: torch.optim.NAdam(w, lr=1e-2, weight_decay=0.1),
        "adamw": lambda w: torch.optim.AdamW(w, lr=1e-2, weight_decay=0.01),
    }.items():
        w = start.clone().requires_grad_()
        optimizer = make([w])
        for g in gradients:
            w.grad = g.clone()
            optimizer.step()
        out[f"optimizer.{name}"] = w.detach()
    g = [torch.randn(3, 4), torch.randn(1, 9)]
    for i, t in enumerate(g):
        out[f"clip.given{i}"] = t.clone()
    leaves = [torch.zeros_like(t).requires_grad_() for t in g]
    for leaf, t in zip(leaves, g):
        leaf.grad = t
    torch.nn.utils.clip_grad_norm_(leaves, 0.5)
    for i, leaf in enumerate(leaves):
        out[f"clip.clipped{i}"] = leaf.grad

    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../host/train/tests/data")
    path = os.path.normpath(os.path.join(folder, "step.safetensors"))
    save_file({name: t.detach().contiguous().float() for name, t in out.items()}, path)
    print(path, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
