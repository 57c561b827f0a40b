#!/usr/bin/env python3
"""Writes host/words/tests/data: two small tokenizer.json as SigLIP's (unigrams) and SigLIP 2's (byte pair
encoding with byte fallback, as Gemma's), the tokens of texts, and embeddings of words by transformers.

Usage: make_tokenizer_fixtures.py        needs: numpy torch transformers tokenizers open_clip_torch timm

Tokens are those of transformers, with its padding to the length, after open_clip's canonicalization
(SigLIP) or in lower case (SigLIP 2). Weights are made as by make_text_fixtures.py.
"""

import json
import pathlib

import torch
from open_clip.tokenizer import canonicalize_text
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from make_text_fixtures import fill

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "host/words/tests/data"
TEMPLATES = ["a photo of a {}.", "There is the {} in the Scene!"]
WORDS = ["mug", "Potted_plant", "walk sign"]
CONTEXT = 32
TEXTS = [
    "a photo of a mug.", "A bad Photo of the   cat's tail", "hello_world", "", "3 cups, (12) spoons!",
    "café – naïve Straße", "日本", "<s>bold</s> & <pad>", "\tTabs and\nlines ", "ΣΟΦΟΣ İ", "...",
    "x" * 9,
]
CORPUS = (ROOT / "models/clip/templates.txt").read_text().splitlines() + [
    "hello world", "the cat sat on the mug", "potted plant", "walk sign", "cups and spoons 0123456789", "café naïve",
]


def unigram():
    """As T5's: SentencePiece's unigrams, spaces as ▁ before words."""
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    corpus = [canonicalize_text(line) for line in CORPUS]
    t.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return t


def gemma():
    """As Gemma's: merges over whole texts, spaces as ▁, unknown characters as bytes."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    corpus = [line.lower() for line in CORPUS]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, show_progress=False, max_token_length=12,
        initial_alphabet=["▁"],
    )
    # Words of their own, so that merges do not span sentences; the file splits as Gemma's does.
    split = t.pre_tokenizer
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    t.train_from_iterator(corpus, trainer)
    t.pre_tokenizer = split
    t.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    spec = json.loads(t.to_str())
    vocabulary = spec["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    # HTML, which Gemma has as well.
    vocabulary["</s>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(spec))


def tokens(tokenizer, clean, end, padding, texts):
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=padding)
    out = wrapped([clean(t) for t in texts], padding="max_length", max_length=CONTEXT, truncation=True)["input_ids"]
    # Too long texts are refused, not cut.
    assert all(row[-1] == wrapped.pad_token_id for row in out)
    return out


def case(name, tokenizer, clean, end, padding):
    path = OUT / f"{name}.json"
    path.write_text(tokenizer.to_str() + "\n")
    ids = tokens(tokenizer, clean, end, padding, TEXTS)
    size = tokenizer.get_vocab_size()
    model = SiglipModel(SiglipConfig(
        text_config=dict(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=size,
            max_position_embeddings=CONTEXT, projection_size=8, eos_token_id=1, bos_token_id=None, pad_token_id=0,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=32,
        ),
    ))
    tensors = fill(model)
    rows = []
    with torch.no_grad():
        for word in WORDS:
            texts = [t.replace("{}", word) for t in TEMPLATES]
            e = model.text_model(torch.tensor(tokens(tokenizer, clean, end, padding, texts))).pooler_output.double()
            e = (e / e.norm(dim=1, keepdim=True)).mean(0)
            rows.append([float(f"{x:.6g}") for x in e / e.norm()])
    print(path, path.stat().st_size, "bytes,", size, "tokens")
    return dict(
        tokenizer=path.name, texts=TEXTS, ids=ids, tensors=tensors, templates=TEMPLATES, words=WORDS,
        embeddings=rows,
    )


def main():
    OUT.mkdir(exist_ok=True)
    cases = [
        case("siglip", unigram(), canonicalize_text, "</s>", "</s>"),
        case("siglip2", gemma(), str.lower, "<eos>", "<pad>"),
    ]
    lines = ",\n".join(json.dumps(c, separators=(",", ":"), ensure_ascii=False) for c in cases)
    (OUT / "tokens.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
