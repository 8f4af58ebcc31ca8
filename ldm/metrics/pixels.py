"""How far pictures (B, 3, H, W) in [-1, 1] are from others: maps (B, H, W), to be averaged over areas."""

import math

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure


def absolute_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the mean absolute difference of the channels, 0..1: 1 is from black to white."""
    return ((images - references) / 2).abs().mean(1)


def squared_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the mean squared difference of the channels, 0..1."""
    return ((images - references) / 2).square().mean(1)


def ssim(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Return the structural similarity (Wang et al. 2004, eq. 13) of each image (B,), and its map (B, H, W).

    Gaussian window of 11 pixels with sigma 1.5, mean of the channels; 1 if equal. The one number leaves out the
    pixels whose window reaches beyond the edge, as usual; the map has them, with the edges reflected.
    """
    values, maps = structural_similarity_index_measure(
        images, references, data_range=2.0, reduction="none", return_full_image=True
    )
    return values, maps.mean(1)


def decibels(mean_squared_error: float) -> float:
    """Return the peak signal-to-noise ratio of a mean squared error on the scale 0..1; infinite for 0, nan for nan."""
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def psnr(images: Tensor, references: Tensor) -> list[float]:
    """Return the peak signal-to-noise ratio of each image, in dB; infinite if equal."""
    return [
        decibels(float(error))
        for error in squared_error(images, references.to(images.device)).double().mean((1, 2))
    ]
