"""Linear decoder of latents, for previews while an image is sampled.

Close to a distilled decoder such as TAESD, but its weights are the solution of a least-squares problem, so
that any first stage has one after a second.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL = 3
ROWS = 40  # latent pixels per coefficient that a fit needs
RIDGE = 1e-3  # relative to the variance of the latents


class PreviewDecoder:
    """Maps the 3x3 latent pixels around each one linearly to the f x f pixels of the image that it covers.

    Attributes:
        weight: (3*f*f, C, 3, 3).
        bias: (3*f*f,).
        factor: f.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.factor = math.isqrt(len(bias) // 3)

    @classmethod
    def fit(cls, latents: Tensor, images: Tensor) -> PreviewDecoder:
        """Solve for the coefficients by ridge regression.

        Args:
            latents: (B, C, h, w).
            images: the images that they encode, (B, 3, f*h, f*w).
        """
        factor = images.shape[-1] // latents.shape[-1]
        x = _neighborhoods(latents.double().cpu())  # (rows, C*9)
        y = F.pixel_unshuffle(images.double().cpu(), factor).flatten(2).transpose(1, 2).flatten(0, 1)
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        gram = x.T @ x + RIDGE * len(x) * x.var() * torch.eye(x.shape[1], dtype=x.dtype)
        solved = torch.linalg.solve(gram, x.T @ y)  # (C*9, 3*f*f)
        weight = solved.T.unflatten(1, (latents.shape[1], KERNEL, KERNEL))
        bias = y_mean - x_mean @ solved
        return cls(weight.to(latents), bias.to(latents))

    def __call__(self, z: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) to images (B, 3, f*h, f*w) in [-1, 1]."""
        pixels = F.conv2d(_padded(z.to(self.weight)), self.weight, self.bias)
        return F.pixel_shuffle(pixels.float(), self.factor).clamp(-1, 1)


def images_needed(channels: int, size: tuple[int, int]) -> int:
    """Return how many images a fit needs for latents of `channels` and (h, w) = `size`."""
    return math.ceil(ROWS * channels * KERNEL**2 / (size[0] * size[1]))


def _padded(z: Tensor) -> Tensor:
    return F.pad(z, [KERNEL // 2] * 4, mode="replicate")


def _neighborhoods(z: Tensor) -> Tensor:
    """Return the 3x3 neighborhood of each latent pixel, (B*h*w, C*9)."""
    return F.unfold(_padded(z), KERNEL).transpose(1, 2).flatten(0, 1)
