"""What all scores are made of: pictures read back, their differences as maps, and means over areas."""

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


def read_back(folder: Path, file: str) -> Tensor | None:
    """Return a picture (3, H, W) that was made; None if it was not."""
    try:
        return load_image(folder / file)
    except ImageError:
        return None


class Comparison:
    """How far a picture (3, H, W) is from another.

    Attributes:
        maps: (H, W) of the absolute and squared error, the structural similarity and, where there is one, LPIPS.
        ssim: of the whole, by its usual definition.
    """

    def __init__(self, picture: Tensor, reference: Tensor, lpips: LPIPS | None = None) -> None:
        image, other = picture[None].cpu(), reference[None].cpu()
        value, similar = ssim(image, other)
        self.ssim = float(value)
        self.maps = {
            "l1": absolute_error(image, other)[0],
            "mse": squared_error(image, other)[0],
            "ssim": similar[0],
        }
        if lpips is not None:
            device = lpips.mean.device
            with torch.no_grad():
                self.maps["lpips"] = lpips(image.to(device), other.to(device))[0].cpu()

    def whole(self) -> Scores:
        """Return the scores of the whole picture."""
        return {**self.inside(torch.ones_like(self.maps["l1"], dtype=torch.bool)), "ssim": self.ssim}

    def inside(self, area: Tensor) -> Scores:
        """Return the scores of a part, area (H, W), boolean; nan where it is empty."""
        means = {name: float(values[area].double().mean()) for name, values in self.maps.items()}
        return {"psnr": decibels(means.pop("mse")), **means}


class Pooled:
    """Errors of an area, added up over pictures, so that a picture counts by the pixels that it has."""

    def __init__(self) -> None:
        self.pixels = 0
        self.sums: dict[str, float] = {}

    def add(self, comparison: Comparison, area: Tensor) -> None:
        """Add a picture's part."""
        self.pixels += int(area.sum())
        for name, values in comparison.maps.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(values[area].double().sum())

    def scores(self) -> Scores:
        """Return the means."""
        means = {name: total / self.pixels if self.pixels else math.nan for name, total in self.sums.items()}
        return {"psnr": decibels(means.pop("mse", math.nan)), **means}


def means(rows: Iterable[Mapping[str, Any]]) -> Scores:
    """Return the mean of every column, over the rows in which it is a finite number."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                columns.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in columns.items()}


def area_of(labels: Tensor, regions: Iterable[int]) -> Tensor:
    """Return where a label map (H, W) has one of these regions, boolean (H, W)."""
    area = torch.zeros(labels.shape, dtype=torch.bool)
    for region in regions:
        area |= labels == region
    return area
