#!/usr/bin/env python3
"""Writes outputs of NAF for random weights, images and features: tests/data/naf/outputs.safetensors.

The weights are those of NafWeights::random in models/spec; the images and features are those of
SplitMix64, too, so that only outputs are stored. Computed in 64 bits from 32-bit inputs.

    python3 tools/make_naf_fixtures.py [--pth naf.pth]        (needs torch, numpy and safetensors)

--pth also writes the weights as a checkpoint, to try the importer.
"""
import argparse
import os

import numpy as np
import torch
from safetensors.torch import save_file

from naf_reference import Naf

# Channels, grid (rows, columns), image (rows, columns). Multiples of the grid, and not; a dilation
# of 1; as many pixels as cells; a side that is a multiple and one that is not.
CASES = {
    "multiple": (8, (9, 10), (27, 40)),
    "odd": (12, (9, 11), (31, 47)),
    "fine": (4, (13, 10), (13, 19)),
    "mixed": (8, (10, 9), (20, 23)),
}
SEED = 7


class SplitMix64:
    def __init__(self, seed):
        self.state = np.uint64(seed)

    def uniform(self, count):
        with np.errstate(over="ignore"):
            gamma = np.uint64(0x9E3779B97F4A7C15)
            z = self.state + gamma * np.arange(1, count + 1, dtype=np.uint64)
            self.state = z[-1]
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
        return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)

    def around(self, mean, spread, shape):
        """mean - spread to mean + spread, in 32 bits."""
        values = np.float32(mean) + np.float32(spread) * (2 * self.uniform(int(np.prod(shape))) - 1)
        return torch.from_numpy(values.reshape(shape))


def weights(model, seed):
    random, state = SplitMix64(seed), {}
    for name, old in model.state_dict().items():
        shape = tuple(old.shape)
        if name.endswith("periods"):
            state[name] = old
        elif not name.endswith("weight"):
            state[name] = random.around(0, 0.3, shape)
        elif len(shape) == 1:
            state[name] = random.around(1, 0.4, shape)
        else:
            state[name] = random.around(0, 2.5 / np.sqrt(np.prod(shape[1:])), shape)
    return state


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pth")
    args = parser.parse_args()
    model = Naf()
    state = weights(model, SEED)
    model.load_state_dict(state)
    if args.pth:
        torch.save(state, args.pth)
    model.double()
    outputs = {}
    with torch.inference_mode():
        for i, (name, (channels, grid, size)) in enumerate(CASES.items()):
            random = SplitMix64(100 + i)
            image = random.around(0, 2, (1, 3, *size)).double()
            features = random.around(0, 1, (1, channels, *grid)).double()
            out = model(image, features)
            outputs[name] = out.float().contiguous()
            print(name, tuple(out.shape), float(out.abs().max()))
    folder = os.path.join(os.path.dirname(__file__), "../tests/data/naf")
    save_file(outputs, os.path.join(folder, "outputs.safetensors"))


if __name__ == "__main__":
    main()
