"""How near a picture comes to another."""

import math

from torch import Tensor


def psnr(image: Tensor, reference: Tensor) -> list[float]:
    """Return the peak signal-to-noise ratio of each image (B, 3, H, W) in [-1, 1], in dB; infinite if equal."""
    error = ((image - reference.to(image.device)) / 2).square().flatten(1).mean(1).cpu().double()
    return [-10 * math.log10(e) if e > 0 else math.inf for e in error.tolist()]
