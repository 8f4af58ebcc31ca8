"""Deterministic weights for the golden cases.

A golden case ships inputs and expected outputs, never weights: every tensor of a
state dict is filled from its own key name, so two implementations that share key
names and shapes hold the same weights.

    rule   seed  = crc32(key); draw = numpy PCG64(seed).standard_normal(shape), float32
           ndim >= 2                      draw / sqrt(fan_in)     (fan_in = product of shape[1:])
           ndim == 1, key ends in weight  1 + 0.1 * draw          (norm scales)
           ndim == 1, otherwise           0.1 * draw              (biases)
           codebook (embedding.weight)    draw

Keys are taken relative to the module that the case builds. Buffers that the module
computes itself (schedules, EMA counters) are left as they are.
"""

import zlib

import numpy as np
import torch


def golden_tensor(key: str, shape: tuple) -> torch.Tensor:
    """The weight that `key` stands for, float32, of `shape`."""
    draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key.endswith("embedding.weight"):
        pass
    elif len(shape) >= 2:
        draw /= np.sqrt(np.prod(shape[1:], dtype=np.float64)).astype(np.float32)
    elif key.endswith("weight"):
        draw = 1 + 0.1 * draw
    else:
        draw = 0.1 * draw
    return torch.from_numpy(np.ascontiguousarray(draw, dtype=np.float32))


def fill(module: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
    """Fill every parameter of `module` in place by the rule above; `prefix` is put before each key."""
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(golden_tensor(prefix + key, tuple(parameter.shape)))
    return module
