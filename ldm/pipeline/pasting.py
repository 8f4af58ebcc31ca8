"""Paste an edited face into its photo: a soft matte from the photo itself, and the edit's change of colour.

Everything is numpy, (H, W) or (H, W, 3) float32, on the window of the photo around the face.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.color_space import ColorSpace
from ldm.parsing.alignment import Crop

LEAST_ALPHA = 1 / 512  # below it a pixel is outside: it could not change a byte by more than half
EXTEND = 1 / 64  # of the crop's side: how far a region's change is smoothed beyond its edge
WIDER = 1.5  # sides of the crop in which regions are found beyond it
FADE = 1 / 12  # of the crop's half side: the edit of a region that goes on beyond the crop fades out over it
ROWS = 256  # of the photo that are changed at once, which bounds the memory
EDGE = 0.02  # standard deviation of lightness (0..1) from which on the guided filter keeps an edge

Edit = Callable[[np.ndarray, Tensor], np.ndarray]


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
    alpha = np.clip((soft - 0.25) / 0.65, 0, 1)
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
    photo: np.ndarray, space: ColorSpace, weights: np.ndarray, crop: Crop, edit: Edit, strength: float
) -> np.ndarray:
    """Return uint8 (H, W, 3), the photo with an edit; where the weights are 0 pixels keep their bytes.

    Args:
        photo: uint8 (H, W, 3) in the colour space `space`.
        space: the photo's.
        weights: (H, W) in 0..1, of `region_weights`.
        crop: what the edit's grid refers to.
        edit: CIELAB (h, w, 3) and its grid (h, w, 2) within the crop to the edited CIELAB (h, w, 3).
        strength: factor of the change.
    """
    result = photo.copy()
    rows, columns = np.flatnonzero(weights.max(1)), np.flatnonzero(weights.max(0))
    if not len(rows):
        return result
    left, right = int(columns[0]), int(columns[-1]) + 1
    for top in range(int(rows[0]), int(rows[-1]) + 1, ROWS):
        bottom = min(top + ROWS, int(rows[-1]) + 1)
        before, alpha = photo[top:bottom, left:right], weights[top:bottom, left:right]
        lab = space.to_lab(before)
        added = (edit(lab, crop_grid(crop, top, bottom, left, right)) - lab) * (strength * alpha)[..., None]
        # The difference of two codes is added, so that no rounding on the way through CIELAB stays.
        step = np.rint(255 * (space.from_lab(lab + added) - space.from_lab(lab)))
        result[top:bottom, left:right] = np.clip(before + step, 0, 255).astype(np.uint8)
    return result


def region_weights(
    photo: np.ndarray, space: ColorSpace, crop: Crop, mask: np.ndarray, surroundings: np.ndarray | None = None
) -> np.ndarray:
    """Return the weights of an edit of a region, float32 (H, W) in 0..1.

    Args:
        photo: uint8 (H, W, 3) in the colour space `space`.
        space: the photo's.
        crop: of the face.
        mask: (m, n) in 0..1, the region within the crop.
        surroundings: the same within the crop of WIDER the side, for a region that goes on beyond the crop; with None
            the weights fade out at the crop's edge.
    """
    weights = np.zeros(photo.shape[:2], np.float32)
    outer = crop if surroundings is None else wider(crop)
    reach = abs(outer.axis.real) + abs(outer.axis.imag)
    top, bottom = (_within(crop.centre.imag + sign * reach, photo.shape[0]) for sign in (-1, 1))
    left, right = (_within(crop.centre.real + sign * reach, photo.shape[1]) for sign in (-1, 1))
    if bottom <= top or right <= left:
        return weights
    bands = [photo[start : min(start + ROWS, bottom), left:right] for start in range(top, bottom, ROWS)]
    lightness = np.concatenate([space.to_lab(band)[..., 0] for band in bands]) / 100
    inner = _faded(crop_grid(crop, top, bottom, left, right))
    region = enlarge(mask[..., None], crop_grid(crop, top, bottom, left, right))[..., 0].clip(0, 1)
    edge = inner
    if surroundings is not None:
        grid = crop_grid(outer, top, bottom, left, right)
        around = enlarge(surroundings[..., None], grid)[..., 0].clip(0, 1)
        region = inner * region + (1 - inner) * around
        edge = _faded(grid)
    alpha = matte(region * (edge > 0), lightness, 2 * abs(crop.axis)) * edge
    alpha[alpha < LEAST_ALPHA] = 0
    weights[top:bottom, left:right] = alpha
    return weights


def wider(crop: Crop) -> Crop:
    """Return the crop around a face's crop in which hair beyond it is found."""
    return Crop(crop.centre, WIDER * crop.axis)


def _faded(grid: Tensor) -> np.ndarray:
    """Return weights (H, W): 1 within a crop, falling to 0 at its edge over FADE, 0 beyond it."""
    return np.clip((1 - grid.abs().amax(-1).numpy()) / FADE, 0, 1)


def _within(place: float, length: int) -> int:
    return min(max(0, round(place)), length)


def crop_grid(crop: Crop, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Return where the pixels of a window are in a crop, (H, W, 2) in -1..1 within it."""
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
    dx, dy = x - np.float32(crop.centre.real), y - np.float32(crop.centre.imag)
    inverse = 1 / crop.axis
    places = np.stack(
        [dx * inverse.real - dy * inverse.imag, dx * inverse.imag + dy * inverse.real], -1, dtype=np.float32
    )
    return torch.from_numpy(places)
