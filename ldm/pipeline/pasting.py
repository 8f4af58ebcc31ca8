"""Paste an edited face into its photo: a soft matte from the photo itself, and the edit's change of colour.

Everything is numpy, (H, W) or (H, W, 3) float32, on the window of the photo around the face.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ALPHA = 1 / 512  # below it a pixel is outside: it could not change a byte by more than half
EXTEND = 1 / 64  # of the crop's side: how far a region's change is smoothed beyond its edge
EDGE = 0.02  # standard deviation of lightness (0..1) from which on the guided filter keeps an edge


def box_mean(image: np.ndarray, radius: int) -> np.ndarray:
    """Return the mean of (H, W) over squares of 2 radius + 1 pixels, which end at the border."""
    for axis in (0, 1):
        length = image.shape[axis]
        sums = np.concatenate(
            [np.zeros_like(image.take([0], axis), np.float64), np.cumsum(image, axis, np.float64)], axis
        )
        after = np.minimum(np.arange(length) + radius + 1, length)
        before = np.maximum(np.arange(length) - radius, 0)
        counts = (after - before).reshape((-1, 1) if axis == 0 else (1, -1))
        image = ((sums.take(after, axis) - sums.take(before, axis)) / counts).astype(np.float32)
    return image


def guided_filter(guide: np.ndarray, image: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Return `image` filtered so that its edges follow the guide's (He et al. 2013, equations 5, 6 and 8).

    Args:
        guide: (H, W), here the photo's lightness in 0..1.
        image: (H, W), here a region's mask.
        radius: of the window in pixels.
        epsilon: variance of the guide from which on an edge is kept.
    """
    mean_i, mean_p = box_mean(guide, radius), box_mean(image, radius)
    variance = box_mean(guide * guide, radius) - mean_i * mean_i
    covariance = box_mean(guide * image, radius) - mean_i * mean_p
    a = covariance / (np.maximum(variance, 0) + epsilon)  # equation 5
    b = mean_p - a * mean_i  # equation 6
    return box_mean(a, radius) * guide + box_mean(b, radius)  # equation 8


def matte(mask: np.ndarray, lightness: np.ndarray, side: float) -> np.ndarray:
    """Return the weights of an edit, float32 (H, W) in 0..1 and exactly 0 away from the region.

    Args:
        mask: (H, W) in 0..1, the region enlarged to the photo's pixels.
        lightness: (H, W) in 0..1, the photo's.
        side: of the face's crop in the photo's pixels.
    """
    area = float(mask.sum())
    if area < 1:
        return np.zeros_like(mask)
    radius = max(1, round(min(side / 64, area**0.5 / 12)))
    soft = guided_filter(lightness, mask, radius, EDGE**2)
    near = box_mean(mask, radius)  # 0 farther than the radius from the region, 1 farther than it inside
    alpha = np.clip((soft - 0.06) / 0.88, 0, 1)
    alpha = np.where(near <= 0.002, 0, np.where(near >= 0.999, 1, alpha))
    alpha[alpha < LEAST_ALPHA] = 0
    return alpha.astype(np.float32)


def extended(change: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a region's change of colour (H, W, 3) continued beyond its edge, where hair is half transparent.

    Normalised convolution over growing windows: each pixel outside takes the mean of the nearest inside.
    """
    inside = (mask > 0.5).astype(np.float32)
    if not inside.any():
        return change
    result, known = change * inside[..., None], inside
    radius = max(1, round(max(mask.shape) * EXTEND))
    while radius < max(mask.shape):
        weight = box_mean(inside, radius)
        mean = np.stack([box_mean(change[..., c] * inside, radius) for c in range(3)], -1)
        fresh = (known == 0) & (weight > 1e-6)
        result[fresh] = mean[fresh] / weight[fresh][:, None]
        known = np.maximum(known, fresh)
        radius *= 2
    return result


def enlarge(image: np.ndarray, grid: Tensor) -> np.ndarray:
    """Sample a crop (h, w, C) at the places of `grid` (H, W, 2) in -1..1, bicubic; returns (H, W, C)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    found = F.grid_sample(tensor, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return found[0].permute(1, 2, 0).numpy()


def gradient_energy(lightness: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean of squared differences between neighbours of (H, W): how much detail there is."""
    dy, dx = np.diff(lightness, axis=0)[:, :-1], np.diff(lightness, axis=1)[:-1]
    w = weights[:-1, :-1]
    return float((w * (dx**2 + dy**2)).sum() / max(w.sum(), 1e-6))
