#!/usr/bin/env python3
"""Compares the speed of a training step with PyTorch's, on the CPU.

A step is forward, backward of a mean squared error, and AdamW. Both sides take turns, so that a
busy machine slows both; the medians and their ratio are printed.

    cargo build -p loftup-train --example training_speed
    python3 tools/bench_training.py [path of training_speed] [--rounds 5]        (needs torch)
"""
import argparse
import statistics
import subprocess
import time

import make_training_fixtures as reference
import torch
import torch.nn.functional as F

CASES = [(384, 112, 1), (64, 112, 2)]


def prepare(d, side, batch):
    reference.D, reference.E, reference.FREQUENCIES = d, d + 20, 20
    p, stats = reference.weights()
    p = {name: t.requires_grad_() for name, t in p.items() if not name.startswith(("downsampler", "uncertainty"))}
    lr, image = torch.randn(batch, d, side // 14, side // 14), torch.randn(batch, 3, side, side)
    target = torch.randn(batch, d, side, side)
    optimizer = torch.optim.AdamW(list(p.values()), lr=1e-3)

    def step():
        optimizer.zero_grad()
        F.mse_loss(reference.upsample(p, stats, lr, image, True), target).backward()
        optimizer.step()

    return step


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program", nargs="?", default="target/debug/examples/training_speed")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments = arguments.parse_args()
    torch.set_num_threads(torch.get_num_threads())
    for d, side, batch in CASES:
        step = prepare(d, side, batch)
        step()
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            step()
            theirs.append(time.perf_counter() - start)
            out = subprocess.run([arguments.program, str(d), str(side), str(batch), "1"], capture_output=True, text=True, check=True)
            ours.append(float(out.stdout.split()[0]))
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"d={d} {side}x{side} batch {batch}: loftup-train {a:.2f} s, PyTorch {b:.2f} s, ratio {a / b:.2f}", flush=True)


main()
