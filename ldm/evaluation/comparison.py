"""Pairwise image metrics: error maps of two images, and their means over regions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.data.images import ImageError, load_image
from ldm.metrics.pixels import absolute_error, decibels, squared_error, ssim
from ldm.modules.lpips import LPIPS

Scores = dict[str, float]


def load_sample(folder: Path, file: str) -> Tensor | None:
    """Load a generated image (3, H, W) in [-1, 1]; return None if the file is missing or damaged."""
    try:
        return load_image(folder / file)
    except ImageError:
        return None


class Comparison:
    """Error maps between an image (3, H, W) and a reference, both in [-1, 1].

    Attributes:
        maps: (H, W) each: "l1", "mse", "ssim" and, with an LPIPS network, "lpips".
        ssim: SSIM of the whole image, without the border that the window does not fit in.
    """

    def __init__(self, image: Tensor, reference: Tensor, lpips: LPIPS | None = None) -> None:
        batch, references = image[None].cpu(), reference[None].cpu()  # (1, 3, H, W)
        value, ssim_map = ssim(batch, references)  # (1,), (1, H, W)
        self.ssim = float(value)
        self.maps = {
            "l1": absolute_error(batch, references)[0],
            "mse": squared_error(batch, references)[0],
            "ssim": ssim_map[0],
        }
        if lpips is not None:
            device = lpips.mean.device
            with torch.no_grad():
                self.maps["lpips"] = lpips(batch.to(device), references.to(device))[0].cpu()

    def whole(self) -> Scores:
        """Return the scores of the whole image."""
        return {**self.inside(torch.ones_like(self.maps["l1"], dtype=torch.bool)), "ssim": self.ssim}

    def inside(self, mask: Tensor) -> Scores:
        """Return the scores inside a boolean mask (H, W); NaN if it is empty."""
        means = {name: float(values[mask].double().mean()) for name, values in self.maps.items()}
        return {"psnr": decibels(means.pop("mse")), **means}


class PixelAverage:
    """Running mean of error maps over the pixels of many images: every pixel has the same weight."""

    def __init__(self) -> None:
        self.pixels = 0
        self.sums: dict[str, float] = {}

    def add(self, comparison: Comparison, mask: Tensor) -> None:
        """Add the pixels of a comparison inside a boolean mask (H, W)."""
        self.pixels += int(mask.sum())
        for name, values in comparison.maps.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(values[mask].double().sum())

    def scores(self) -> Scores:
        """Return the means; NaN without pixels."""
        means = {name: total / self.pixels if self.pixels else math.nan for name, total in self.sums.items()}
        return {"psnr": decibels(means.pop("mse", math.nan)), **means}


def means(rows: Iterable[Mapping[str, Any]]) -> Scores:
    """Return the mean of each column over its finite values."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                columns.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in columns.items()}


def region_mask(labels: Tensor, regions: Iterable[int]) -> Tensor:
    """Return a boolean mask (H, W) of the pixels of a label map (H, W) that belong to any of `regions`."""
    mask = torch.zeros(labels.shape, dtype=torch.bool)
    for region in regions:
        mask |= labels == region
    return mask
