"""Pixel metrics of images (B, 3, H, W) in [-1, 1]: error maps (B, H, W), SSIM and PSNR."""

import math

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure


def absolute_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the absolute error (B, H, W), mean over channels, in [0, 1]: 1 is black against white."""
    return ((images - references) / 2).abs().mean(1)


def squared_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the squared error (B, H, W), mean over channels, in [0, 1]."""
    return ((images - references) / 2).square().mean(1)


def ssim(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Return the SSIM (Wang et al. 2004, eq. 13) of each image (B,), and its map (B, H, W); 1 for equal images.

    Gaussian window of 11 pixels with sigma 1.5, mean over channels. As usual, the SSIM of an image leaves out
    pixels whose window crosses the border; the map includes them, with reflected borders.
    """
    values, maps = structural_similarity_index_measure(
        images, references, data_range=2.0, reduction="none", return_full_image=True
    )
    return values, maps.mean(1)


def decibels(mean_squared_error: float) -> float:
    """Return the PSNR of a mean squared error in [0, 1]; infinite for 0, NaN for NaN."""
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def psnr(images: Tensor, references: Tensor) -> list[float]:
    """Return the PSNR of each image, in dB; infinite for equal images."""
    return [
        decibels(float(error))
        for error in squared_error(images, references.to(images.device)).double().mean((1, 2))
    ]
