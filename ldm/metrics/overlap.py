"""Agreement of label maps: confusion matrix, IoU and pixel accuracy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.labels import UNLABELED


def confusion(found: Tensor, truth: Tensor, num_regions: int, checked: bool = False) -> Tensor:
    """Return the confusion matrix (R, R + 1), int64: pixels by (true region, predicted region).

    The last column counts pixels that are predicted as unlabeled; pixels whose truth is unlabeled are
    ignored.

    Args:
        found: predicted label maps of any shape, values 0..R-1 or 255 for unlabeled.
        truth: true label maps of the same shape.
        num_regions: number of regions R.
        checked: the true labels are known to be valid; skips the check, for which the host would wait for a
            GPU.

    Raises:
        ValueError: the shapes differ, or an unknown label in the truth.
    """
    if found.shape != truth.shape:
        raise ValueError(
            f"label maps must have the same shape, got {tuple(found.shape)} and {tuple(truth.shape)}"
        )
    R = num_regions
    if not checked and ((truth >= R) & (truth != UNLABELED)).any():
        raise ValueError(f"true labels must be in [0, {R - 1}] or {UNLABELED}, got {truth.unique().tolist()}")
    counted = truth != UNLABELED
    columns = found.long().clamp(max=R)  # unlabeled: column R
    # Cell 0 counts ignored pixels: selecting the others, and bincount, would wait for a GPU.
    cells = torch.where(counted, truth.long() * (R + 1) + columns + 1, 0).flatten()
    counts = cells.new_zeros(R * (R + 1) + 1).scatter_add_(0, cells, torch.ones_like(cells))
    return counts[1:].view(R, R + 1)


@dataclass(frozen=True)
class Overlap:
    """Scores of a confusion matrix.

    Attributes:
        iou: intersection over union per region; NaN for regions in neither map.
        miou: mean IoU of the regions in the truth.
        pixel_accuracy: fraction of labeled pixels that agree.
    """

    iou: list[float]
    miou: float
    pixel_accuracy: float


def overlap(counts: Tensor) -> Overlap:
    """Return the scores of a confusion matrix (R, R + 1), or of a sum of them; NaN if it is empty."""
    counts = counts.double().cpu()
    correct = counts.diagonal()  # (R,)
    true, predicted = counts.sum(1), counts[:, : len(counts)].sum(0)  # (R,), (R,)
    iou = correct / (true + predicted - correct)  # 0 / 0 is NaN
    return Overlap(
        iou=iou.tolist(),
        miou=float(iou[true > 0].mean()),
        pixel_accuracy=float(correct.sum() / counts.sum()),
    )
