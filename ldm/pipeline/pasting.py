"""Paste an edited face into its photo: a soft matte from the photo, and the color change of the edit.

Arrays are numpy float32, (H, W) or (H, W, 3), on a window of the photo around the face, unless noted
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.color_space import ColorSpace
from ldm.parsing.alignment import Crop, crop_grid, wider

MIN_ALPHA = 1 / 512  # smaller weights are set to 0: they change a byte by less than half
EXTEND = 1 / 64  # initial smoothing radius outside a region, relative to the crop's side
FADE = 1 / 12  # width of the fade-out at the edge of the crop, relative to half its side
ROWS = 256  # rows processed at once, which bounds the memory
EDGE = 0.02  # lightness edge (standard deviation in 0..1) that the guided filter preserves
# Values of the filtered mask that become alpha 0 and 1: a steeper edge, without a halo.
MATTE_RANGE = 0.25, 0.9

Edit = Callable[[np.ndarray, Tensor], np.ndarray]


def box_mean(image: np.ndarray, radius: int) -> np.ndarray:
    """Return the box filter of (H, W) with side 2 radius + 1, clipped at the border."""
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
        guide: (H, W), the photo's lightness in [0, 1].
        image: (H, W), the mask of a region.
        radius: window radius in pixels.
        epsilon: variance of the guide above which edges are preserved.
    """
    mean_i, mean_p = box_mean(guide, radius), box_mean(image, radius)
    variance = box_mean(guide * guide, radius) - mean_i * mean_i
    covariance = box_mean(guide * image, radius) - mean_i * mean_p
    a = covariance / (np.maximum(variance, 0) + epsilon)  # equation 5
    b = mean_p - a * mean_i  # equation 6
    return box_mean(a, radius) * guide + box_mean(b, radius)  # equation 8


def matte(mask: np.ndarray, lightness: np.ndarray, side: float) -> np.ndarray:
    """Return the alpha matte of an edit, float32 (H, W) in [0, 1], exactly 0 away from the region.

    Args:
        mask: (H, W) in [0, 1], the region at the photo's resolution.
        lightness: lightness of the photo, (H, W) in [0, 1].
        side: side of the face crop in photo pixels.
    """
    area = float(mask.sum())
    if area < 1:
        return np.zeros_like(mask)
    # A 64th of the face crop, about the width of a hairline; less for small regions such as lips.
    radius = max(1, round(min(side / 64, area**0.5 / 12)))
    soft = guided_filter(lightness, mask, radius, EDGE**2)
    near = box_mean(mask, radius)  # 0 beyond the radius outside the region, 1 beyond it inside
    alpha = np.clip((soft - MATTE_RANGE[0]) / (MATTE_RANGE[1] - MATTE_RANGE[0]), 0, 1)
    # Exact values beyond the radius; the tolerances absorb rounding errors of box_mean.
    alpha = np.where(near <= 0.002, 0, np.where(near >= 0.999, 1, alpha))
    alpha[alpha < MIN_ALPHA] = 0
    return alpha.astype(np.float32)


def extended(change: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Extrapolate the change of color (H, W, 3) of a region beyond its edge, where hair is semi-transparent.

    Normalized convolution with growing windows: each outside pixel takes the mean of the nearest inside
    pixels.
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
    """Sample a crop (h, w, C) bicubically at the points of `grid` (H, W, 2) in [-1, 1]; return (H, W, C)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    found = F.grid_sample(tensor, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return found[0].permute(1, 2, 0).numpy()


def paste(
    photo: np.ndarray, space: ColorSpace, weights: np.ndarray, crop: Crop, edit: Edit, strength: float
) -> np.ndarray:
    """Apply an edit to a photo, uint8 (H, W, 3); pixels with weight 0 keep their bytes.

    Args:
        photo: uint8 (H, W, 3) in the color space `space`.
        space: color space of the photo.
        weights: (H, W) in [0, 1], from `region_weights`.
        crop: crop that the grid of the edit refers to.
        edit: function from CIELAB (h, w, 3) and its coordinates in the crop, (h, w, 2) in [-1, 1], to edited
            CIELAB (h, w, 3).
        strength: scale of the change.
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
        # Adding the difference of two encodings cancels the rounding error of CIELAB.
        step = np.rint(255 * (space.from_lab(space.in_gamut(lab + added)) - space.from_lab(lab)))
        result[top:bottom, left:right] = np.clip(before + step, 0, 255).astype(np.uint8)
    return result


def region_weights(
    photo: np.ndarray, space: ColorSpace, crop: Crop, mask: np.ndarray, surroundings: np.ndarray | None = None
) -> np.ndarray:
    """Return the weights of an edit of a region, float32 (H, W) in [0, 1].

    Args:
        photo: uint8 (H, W, 3) in the color space `space`.
        space: color space of the photo.
        crop: face crop.
        mask: (m, n) in [0, 1], the region within the crop.
        surroundings: the region within the wider crop, for regions that extend beyond the
            crop; None fades the weights out at the edge of the crop.
    """
    weights = np.zeros(photo.shape[:2], np.float32)
    outer = crop if surroundings is None else wider(crop)
    reach = abs(outer.axis.real) + abs(outer.axis.imag)
    top, bottom = (_clipped(crop.center.imag + sign * reach, photo.shape[0]) for sign in (-1, 1))
    left, right = (_clipped(crop.center.real + sign * reach, photo.shape[1]) for sign in (-1, 1))
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
    alpha[alpha < MIN_ALPHA] = 0
    weights[top:bottom, left:right] = alpha
    return weights


def _faded(grid: Tensor) -> np.ndarray:
    """Return weights (H, W): 1 inside a crop, fading to 0 at its edge over FADE, 0 outside."""
    return np.clip((1 - grid.abs().amax(-1).numpy()) / FADE, 0, 1)


def _clipped(coordinate: float, length: int) -> int:
    return min(max(0, round(coordinate)), length)
