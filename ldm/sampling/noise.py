"""Noise from one generator per image: independent of the rest of the batch and of the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.data.transfer import to_device

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
    """Sample standard normal noise of `shape` (B, ...).

    Args:
        shape: shape, batch dimension first.
        generator: one generator per image, so that the noise of a seed does not depend on the batch; one for
            the batch; or None for the default generator.
        device: device of the result; noise is sampled on the device of the generator.
        dtype: dtype of the result; generators sample noise in float32, the default generator in this dtype.

    Raises:
        ValueError: the number of generators is not the batch size.
    """
    if generator is None:
        return torch.randn(*shape, device=device, dtype=dtype)
    if isinstance(generator, torch.Generator):
        noise = torch.randn(*shape, generator=generator, device=generator.device)
    else:
        if len(generator) != shape[0]:
            raise ValueError(
                f"expected one generator per image, got {len(generator)} generators for a batch of {shape[0]}"
            )
        noise = torch.stack([torch.randn(*shape[1:], generator=g, device=g.device) for g in generator])
    return to_device(noise, device).to(dtype)
