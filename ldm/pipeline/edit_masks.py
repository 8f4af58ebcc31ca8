"""Edit masks: the area that an edit may change, with a soft border."""

import torch
import torch.nn.functional as F
from torch import Tensor


def area_of(regions: list[int], *label_maps: Tensor) -> Tensor:
    """Return the pixels (B, H, W) that have one of `regions` in any label map (B, H, W), or different labels."""
    first = label_maps[0]
    area = torch.zeros_like(first, dtype=torch.bool)
    for labels in label_maps:
        area |= torch.isin(labels, torch.tensor(regions, dtype=labels.dtype, device=labels.device))
        area |= labels != first
    return area


def soften(area: Tensor, border: int | None = None) -> Tensor:
    """Return weights (B, 1, H, W): 1 in `area` (B, H, W), decreasing linearly to 0 over `border` pixels.

    The default border is 1/64 of the height.

    Raises:
        ValueError: a negative border.
    """
    border = max(1, round(area.shape[-2] / 64)) if border is None else border
    if border < 0:
        raise ValueError(f"border must be at least 0 pixels, got {border}")
    inside = area[:, None].float()
    rings = [inside]
    for _ in range(border):
        rings.append(F.max_pool2d(rings[-1], 3, 1, 1))
    return torch.stack(rings).mean(0)


def shrink(weights: Tensor, factor: int) -> Tensor:
    """Return the latent pixels that an edit may change, (B, 1, h, w), 0 or 1."""
    return (F.max_pool2d(weights, factor) > 0).float()


def blend(edited: Tensor, original: Tensor, weights: Tensor) -> Tensor:
    """Blend by weights (B, 1, H, W): `edited` at 1, exactly `original` at 0."""
    return torch.where(weights > 0, torch.lerp(original, edited, weights), original)
