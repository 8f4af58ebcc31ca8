"""Paste an edited face into its photo: a soft matte from the photo itself, and the edit's change of colour.

Everything is numpy, (H, W) or (H, W, 3) float32, on the window of the photo around the face.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.color_space import ColorSpace
from ldm.parsing.alignment import Crop

LEAST_ALPHA = 1 / 512  # below it a pixel is outside: it could not change a byte by more than half
EXTEND = 1 / 64  # of the crop's side: how far a region's change is smoothed beyond its edge
FADE = 1 / 12  # of the crop's half side: the edit of a region that goes on beyond the crop fades out over it
ROWS = 256  # of the photo that are changed at once, which bounds the memory
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


def paste(
    photo: np.ndarray,
    space: ColorSpace,
    crop: Crop,
    change: np.ndarray,
    mask: np.ndarray,
    *,
    strength: float = 1.0,
    replace: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo with a region of a crop changed, and the matte, float32 (H, W) in 0..1.

    Where the matte is 0 the pixels keep their bytes.

    Args:
        photo: uint8 (H, W, 3) in the colour space `space`.
        space: the photo's.
        crop: where `change` and `mask` are in the photo.
        change: (h, w, 3), CIELAB: what to add, or with `replace` the colours themselves.
        mask: (m, n) in 0..1, the region.
        strength: factor of the change.
        replace: as `change` says.
    """
    result, weights = photo.copy(), np.zeros(photo.shape[:2], np.float32)
    reach = abs(crop.axis.real) + abs(crop.axis.imag)
    top, bottom = (_within(crop.centre.imag + sign * reach, photo.shape[0]) for sign in (-1, 1))
    left, right = (_within(crop.centre.real + sign * reach, photo.shape[1]) for sign in (-1, 1))
    window = np.s_[top:bottom, left:right]
    grid = _grid(crop, top, bottom, left, right)
    bands = [np.s_[start : start + ROWS] for start in range(0, bottom - top, ROWS)]
    lightness = np.concatenate([space.to_lab(photo[window][band])[..., 0] for band in bands]) / 100
    region = enlarge(mask[..., None], grid)[..., 0].clip(0, 1)
    beyond = grid.abs().amax(-1).numpy()
    region[beyond > 1] = 0
    fade = np.clip((1 - beyond) / FADE, 0, 1)
    weights[window] = matte(region, lightness, 2 * abs(crop.axis)) * fade
    weights[weights < LEAST_ALPHA] = 0
    for band in bands:
        alpha, before = weights[window][band], photo[window][band]
        lab, new = space.to_lab(before), enlarge(change, grid[band])
        added = (new - lab if replace else new) * (strength * alpha)[..., None]
        # The difference of two codes is added, so that no rounding on the way through CIELAB stays.
        step = np.rint(255 * (space.from_lab(lab + added) - space.from_lab(lab)))
        result[window][band] = np.clip(before + step, 0, 255).astype(np.uint8)
    return result, weights


def _within(place: float, length: int) -> int:
    return min(max(0, round(place)), length)


def _grid(crop: Crop, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Return where the pixels of a window are in a crop, (H, W, 2) in -1..1 within it."""
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
    dx, dy = x - np.float32(crop.centre.real), y - np.float32(crop.centre.imag)
    inverse = 1 / crop.axis
    places = np.stack(
        [dx * inverse.real - dy * inverse.imag, dx * inverse.imag + dy * inverse.real], -1, dtype=np.float32
    )
    return torch.from_numpy(places)


def gradient_energy(lightness: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean of squared differences between neighbours of (H, W): how much detail there is."""
    dy, dx = np.diff(lightness, axis=0)[:, :-1], np.diff(lightness, axis=1)[:-1]
    w = weights[:-1, :-1]
    return float((w * (dx**2 + dy**2)).sum() / max(w.sum(), 1e-6))
