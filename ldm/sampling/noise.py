"""Noise that depends on an image's own seed, never on its neighbours in the batch or on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one CPU generator per seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(
    shape: Sequence[int],
    generator: Generators,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw standard normal noise of `shape` (B, ...).

    Args:
        shape: the batch comes first.
        generator: one per image (the image of a seed is then the same alone and in a batch), one for all, or
            None for torch's own.
        device: where the result goes; the numbers are drawn where the generator lives.
        dtype: of the result; the numbers are drawn in float32.

    Raises:
        ValueError: the number of generators differs from the batch.
    """
    if generator is None:
        return torch.randn(*shape, device=device, dtype=dtype)
    if isinstance(generator, torch.Generator):
        noise = torch.randn(*shape, generator=generator, device=generator.device)
    else:
        if len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}; wanted one per image")
        noise = torch.stack([torch.randn(*shape[1:], generator=g, device=g.device) for g in generator])
    return noise.to(device, dtype)
