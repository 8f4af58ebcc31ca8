"""Label maps of a photo's size: cut the label map of a face crop out of one, and place it into one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ldm.parsing.alignment import Crop, crop_grid

ROWS = 256  # rows placed at once, which bounds the memory


def cut_labels(label_map: np.ndarray, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Return the label map of a crop, uint8 `size`, by nearest neighbor; outside it, edge labels are repeated.

    Args:
        label_map: uint8 (H, W), of the photo's size.
        crop: the crop, in pixels of the photo.
        size: (H, W) of the result.
    """
    y, x = ((np.arange(length) * 2 + 1) / length - 1 for length in size)
    places = crop.center + crop.axis * (x[None, :] + 1j * y[:, None])
    rows = np.floor(places.imag).astype(int).clip(0, label_map.shape[0] - 1)
    columns = np.floor(places.real).astype(int).clip(0, label_map.shape[1] - 1)
    return torch.from_numpy(label_map[rows, columns])


def place_labels(label_map: np.ndarray, crop: Crop, labels: Tensor) -> None:
    """Write the label map of a crop into `label_map`, uint8 (H, W) of the photo's size, by nearest neighbor."""
    H, W = label_map.shape
    reach = abs(crop.axis.real) + abs(crop.axis.imag)
    left, right = (min(max(0, round(crop.center.real + sign * reach)), W) for sign in (-1, 1))
    start, end = (min(max(0, round(crop.center.imag + sign * reach)), H) for sign in (-1, 1))
    h, w = labels.shape
    for top in range(start, end, ROWS):
        bottom = min(top + ROWS, end)
        x, y = crop_grid(crop, top, bottom, left, right).unbind(-1)
        inside = ((x.abs() < 1) & (y.abs() < 1)).numpy()
        rows, columns = ((y + 1) / 2 * h).long().clamp(0, h - 1), ((x + 1) / 2 * w).long().clamp(0, w - 1)
        label_map[top:bottom, left:right][inside] = labels.cpu()[rows, columns].numpy()[inside]
