"""How far two label maps agree: a confusion matrix, and what is read off it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.labels import UNLABELLED


def confusion(found: Tensor, truth: Tensor, num_regions: int) -> Tensor:
    """Count pixels by (true region, found region), (R, R), int64; pixels that the truth leaves unlabelled are left out.

    Args:
        found: label maps of any shape, 0..R-1 or unlabelled, which counts as no region.
        truth: the same shape.
        num_regions: R.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != truth.shape:
        raise ValueError(f"label maps {tuple(found.shape)} and {tuple(truth.shape)}; wanted one shape")
    R = num_regions
    counted = truth != UNLABELLED
    rows, columns = truth[counted].long(), found[counted].long().clamp(max=R)  # unlabelled becomes column R
    table = torch.bincount(rows * (R + 1) + columns, minlength=R * (R + 1)).view(R, R + 1)
    # A pixel that was given no region is missed by its own and falsely claimed by none.
    return torch.cat([table[:, :R], table[:, R:]], 1)


@dataclass(frozen=True)
class Overlap:
    """What a confusion matrix says.

    Attributes:
        iou: per region, intersection over union; nan where neither map has the region.
        miou: mean of the regions that the truth has.
        pixel_accuracy: share of the labelled pixels that agree.
    """

    iou: list[float]
    miou: float
    pixel_accuracy: float


def overlap(counts: Tensor) -> Overlap:
    """Read off what a (sum of) `confusion` says; all nan where it is empty."""
    counts = counts.double().cpu()
    right = counts.diagonal()  # (R,), the last column has no row
    true, claimed = counts.sum(1), counts[:, : len(counts)].sum(0)
    iou = right / (true + claimed - right)  # 0 / 0 is nan
    return Overlap(
        iou=iou.tolist(),
        miou=float(iou[true > 0].mean()),
        pixel_accuracy=float(right.sum() / counts.sum()),
    )
