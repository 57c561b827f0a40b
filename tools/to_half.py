#!/usr/bin/env python3
"""Rounds the weights of a safetensors file to fp16.

    python3 tools/to_half.py run/upsampler.safetensors models/weights/photos/upsampler.safetensors
                                                                         (needs numpy and safetensors)
"""
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

weights = {name: tensor.astype(np.float16) for name, tensor in load_file(sys.argv[1]).items()}
for name, tensor in weights.items():
    if not np.isfinite(tensor).all():
        raise SystemExit(f"{sys.argv[1]}: {name} does not fit in fp16")
save_file(weights, sys.argv[2])
