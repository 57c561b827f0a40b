#!/usr/bin/env python3
"""Compares `loftup head text` with open_clip and transformers at the width of CLIP ViT-B/16 and SigLIP
B/16.

Usage: check_text.py LOFTUP [DIRECTORY]        needs: numpy torch transformers open_clip_torch safetensors

LOFTUP must be built with the feature tokenizers, for SigLIP.

Random weights, so that nothing is downloaded. Models are saved as OpenAI does (a TorchScript archive
in 16 bits), as open_clip does (with either activation), and as transformers does; `loftup head text`
encodes words in one template and in CLIP's 80, and its embeddings are compared with those of the
library, whose own tokenizer reads the same texts. SigLIP and SigLIP 2 have the small tokenizers of the tests of
loftup-words, and the threshold of a probability is checked. Prints times. Exit code 0 only if every element of
every embedding of length 1 is within 1e-4.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import open_clip
import torch
from safetensors.numpy import load_file
from open_clip.tokenizer import canonicalize_text
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

WORDS = ["mug", "cable", "floor", "potted plant", "don't walk sign", "3 cups", "Ünïcode café", "日本語", "hello_world", "😀"]
TEMPLATES = pathlib.Path(__file__).parent.parent / "models/clip/templates.txt"
TOKENIZERS = pathlib.Path(__file__).parent.parent / "host/words/tests/data"
TOLERANCE = 1e-4
# Scale and bias from cosines to logits, of about the size of the published ones.
LOGIT_SCALE, LOGIT_BIAS = 4.77, -12.9


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def spread(model):
    """Weights large enough for texts to differ, as those of a trained model do."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "token_embedding" in name or "position" in name:
                p.normal_(0, 0.5)
            elif p.dim() > 1 and "conv1" not in name and "patch" not in name:
                p.mul_(2)
            elif name.endswith("bias"):
                p.normal_(0, 0.1)
            elif p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def embeddings(encode, words, templates, tokenize=open_clip.tokenize):
    rows = []
    with torch.no_grad():
        for word in words:
            e = encode(tokenize([t.replace("{}", word) for t in templates])).double()
            e = (e / e.norm(dim=1, keepdim=True)).mean(0)
            rows.append((e / e.norm()).numpy())
    return np.stack(rows)


def openai_archive(path):
    """OpenAI's form: a traced module in 16 bits with three numbers; returns the model it was made of."""
    model = spread(open_clip.CLIP(
        512, dict(image_size=224, layers=12, width=768, patch_size=16),
        dict(context_length=77, vocab_size=49408, width=512, heads=8, layers=12), quick_gelu=True,
    ))
    for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    model.half().float()
    image, text = torch.ones(2, 3, 224, 224), torch.zeros(2, 77, dtype=torch.int)
    traced = torch.jit.trace_module(model, dict(forward=(image, text), encode_text=(text,), encode_image=(image,)), check_trace=False)
    traced.half().save(str(path))
    model.float()  # It shares its weights with the traced one.
    return model


def models(directory):
    """Name, file of the weights, options, and the library's encoder of tokens."""
    path = directory / "openai.pt"
    model = openai_archive(path)
    yield "OpenAI's archive, 16 bits", path, [], model.encode_text
    for quick in (False, True):
        torch.manual_seed(1 + quick)
        name = "ViT-B-16-quickgelu" if quick else "ViT-B-16"
        model = spread(open_clip.create_model(name, pretrained=None, force_quick_gelu=quick))
        path = directory / f"open_clip-{name}.pt"
        torch.save(model.state_dict(), path)
        activation = ["--activation", "quick-gelu" if quick else "gelu"]
        yield f"open_clip {name}", path, activation, model.encode_text
    torch.manual_seed(3)
    model = spread(CLIPModel(CLIPConfig(vision_config=dict(patch_size=16), projection_dim=512)))
    path = directory / "transformers"
    model.save_pretrained(path)
    encode = lambda ids: model.text_projection(model.text_model(ids).pooler_output)
    yield "transformers CLIPModel", path, [], encode


def siglip_tokenizer(path, clean, end, padding):
    wrapped = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=end, pad_token=padding)
    return lambda texts: torch.tensor(wrapped([clean(t) for t in texts], padding="max_length", max_length=64)["input_ids"])


def siglips(directory):
    """Name, file of the weights, options, encoder of tokens, tokenizer, and its file."""
    first = TOKENIZERS / "siglip.json", canonicalize_text, "</s>", "</s>"
    second = TOKENIZERS / "siglip2.json", str.lower, "<eos>", "<pad>"

    def with_logit(model):
        spread(model)
        with torch.no_grad():
            model.logit_scale.fill_(LOGIT_SCALE)
            model.logit_bias.fill_(LOGIT_BIAS)
        return model

    for seed, (name, rules) in enumerate([("ViT-B-16-SigLIP", first), ("ViT-B-16-SigLIP2", second)]):
        torch.manual_seed(seed)
        model = with_logit(open_clip.create_model(name, pretrained=None))
        weights = directory / f"{name}.pt"
        torch.save(model.state_dict(), weights)
        activation = ["--activation", "gelu-tanh" if name.endswith("2") else "gelu"]
        yield f"open_clip {name}", weights, activation, model.encode_text, siglip_tokenizer(*rules), rules[0]
    torch.manual_seed(5)
    model = with_logit(SiglipModel(SiglipConfig(vision_config=dict(patch_size=16))))
    weights = directory / "siglip"
    model.save_pretrained(weights)
    encode = lambda ids: model.text_model(ids).pooler_output
    yield "transformers SiglipModel", weights, [], encode, siglip_tokenizer(*first), first[0]


def check_siglip(loftup, directory):
    """Whether words of SigLIP models have the library's embeddings."""
    templates = directory / "three.txt"
    templates.write_text("a photo of a {}.\nThere is the {} in the Scene!\n{}\n")
    words = ["mug", "potted_plant", "Don't walk", "café"]
    good = True
    for name, weights, options, encode, tokenize, file in siglips(directory):
        bundle, out = directory / "siglip.loftup", directory / "siglip.safetensors"
        run(loftup, "convert", "--backbone", "siglip-b16", "--backbone-weights", weights, "--text-space", "--force", "--out", bundle)
        start = time.time()
        text = run(loftup, "head", "text", bundle, "--words", ", ".join(words), "--templates", templates, "--tokenizer", file,
                   "--text-weights", weights, *options, "--probability", "0.5", "--out", out, "--force", "--json")
        seconds = time.time() - start
        ours = load_file(out)["weight"]
        theirs = embeddings(encode, words, templates.read_text().splitlines(), tokenize)
        error = np.abs(ours - theirs).max()
        threshold = abs(json.loads(text)["threshold"] + LOGIT_BIAS / np.exp(LOGIT_SCALE))
        fine = error <= TOLERANCE and threshold < 1e-6
        good &= fine
        similar = (theirs @ theirs.T)[np.triu_indices(len(words), 1)].max()
        print(f"{name}, {len(words)} words, 3 templates: {'ok' if fine else 'FAILED'}, off by {error:.1e} "
              f"(most similar words: cosine {similar:.3f}); {seconds:.1f} s", flush=True)
        shutil.rmtree(weights) if weights.is_dir() else weights.unlink()
    return good


def main():
    loftup = sys.argv[1]
    keep = sys.argv[2:] or [None]
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(keep[0] or temporary)
        directory.mkdir(exist_ok=True, parents=True)
        failed = not check_siglip(loftup, directory)
        one = directory / "one.txt"
        one.write_text("{}\n")
        bundle = directory / "clip.loftup"
        for name, weights, options, encode in models(directory):
            if not bundle.exists():
                run(loftup, "convert", "--backbone", "clip-b16", "--backbone-weights", weights, "--activation", "quick-gelu", "--out", bundle)
            # All 77 tokens of each text: PyTorch needs a minute for a word in 80 templates.
            for words, templates in ((WORDS, one), (WORDS[:1], TEMPLATES)):
                out = directory / "words.safetensors"
                start = time.time()
                text = run(loftup, "head", "text", bundle, "--words", ", ".join(words), "--templates", templates,
                           "--text-weights", weights, *options, "--out", out, "--force", "--json")
                ours_seconds = time.time() - start
                ours = load_file(out)["weight"]
                start = time.time()
                theirs = embeddings(encode, words, templates.read_text().splitlines())
                their_seconds = time.time() - start
                error = np.abs(ours - theirs).max()
                similar = (theirs @ theirs.T)[np.triu_indices(len(words), 1)].max(initial=-1)
                good = error <= TOLERANCE
                failed |= not good
                report = json.loads(text)
                print(
                    f"{name}, {len(words)} words, {report['templates']} templates, {report['text_encoder']['activation']}: "
                    f"{'ok' if good else 'FAILED'}, off by {error:.1e}"
                    f"{f' (most similar words: cosine {similar:.3f})' if len(words) > 1 else ''}; "
                    f"{report['seconds']:.1f} s of {ours_seconds:.1f}, PyTorch {their_seconds:.1f} s on all 77 tokens",
                    flush=True,
                )
            # They take 600 MB each.
            shutil.rmtree(weights) if weights.is_dir() else weights.unlink()
    sys.exit(failed)


if __name__ == "__main__":
    main()
