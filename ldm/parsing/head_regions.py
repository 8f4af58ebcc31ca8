"""Regions of one head: a parser also labels other people, collars and dark edges as hair, skin or lips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.labels import LabelSet
from ldm.parsing.alignment import Crop

FACE = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
UNATTACHED = ("background", "cloth")  # need not touch the face
LINKS = ("l_ear", "r_ear", "hair", "hat")  # connect other regions to the face
MORE_LINKS = {"neck_l": ("neck",)}  # not for hair, which a collar would join through the neck
CENTER = (
    0.35  # half side of the area in the middle of a crop that belongs to its face, relative to the crop's
)
GAP = 1 / 40  # of the crop's side; parts of a head are no farther apart


def attached_regions(
    labels: Tensor, label_set: LabelSet, regions: Sequence[str], reach: float = 1.0
) -> Tensor:
    """Return the pixels of regions that belong to the face in the middle of a label map, bool (H, W).

    A component belongs to the face if it is at most GAP away from the face or from another such component.

    Args:
        labels: label map (H, W) of a face crop.
        label_set: names of the labels.
        regions: names of the regions.
        reach: side of the crop, relative to CelebA-HQ's crop of the face.
    """
    face = _labeled(labels, label_set, FACE)
    face = flooded(face & _middle(face, CENTER / reach), face, 1)
    if not face.any():
        return _labeled(labels, label_set, regions)
    gap = max(1, round(GAP / reach * max(labels.shape)))
    result = _labeled(labels, label_set, [name for name in regions if name in UNATTACHED])
    for name in regions:
        if name not in UNATTACHED:
            part = _labeled(labels, label_set, [name])
            links = () if name in FACE else (*LINKS, *MORE_LINKS.get(name, ()))
            result |= part & flooded(face, face | part | _labeled(labels, label_set, links), gap)
    return result


def nearest_face(crop: Crop, others: Sequence[Crop], size: tuple[int, int]) -> Tensor:
    """Return the pixels of a crop that are nearer to its face than to others, bool (H, W).

    Args:
        crop: the crop.
        others: crops of the other faces in the photo; distances are relative to the size of a face.
        size: (H, W) of the result.
    """
    H, W = size
    y, x = torch.meshgrid((torch.arange(H) * 2 + 1) / H - 1, (torch.arange(W) * 2 + 1) / W - 1, indexing="ij")
    place = torch.complex(x, y)
    own = torch.ones(size, dtype=torch.bool)
    for other in others:
        distance = (place - (other.center - crop.center) / crop.axis).abs() / abs(other.axis / crop.axis)
        own &= place.abs() <= distance
    return own


def flooded(seed: Tensor, area: Tensor, gap: int) -> Tensor:
    """Return the pixels of `area` (H, W) that steps of at most `gap` pixels within it reach from `seed`.

    Steps go in all eight directions. Whole runs of a row or a column are filled at once, so that few rounds
    suffice.
    """
    reached = seed & area
    rows, columns = _runs(area, gap), _runs(area.T, gap)
    while True:
        grown = _within(reached, gap)
        grown = _filled(_filled(grown & area, area, rows).T, area.T, columns).T
        if torch.equal(grown, reached):
            return reached
        reached = grown


def _within(area: Tensor, gap: int) -> Tensor:
    """Return the pixels at most `gap` rows and columns away from `area`, bool (H, W).

    The maximum of a square is that of its rows' maxima: 2n instead of n * n comparisons a pixel.
    """
    rows = F.max_pool2d(area[None, None].float(), (1, 2 * gap + 1), 1, (0, gap))
    return F.max_pool2d(rows, (2 * gap + 1, 1), 1, (gap, 0))[0, 0] > 0


def _runs(area: Tensor, gap: int) -> Tensor:
    """Return the index of each pixel's run (H, W): pixels of `area` in one row, at most `gap` from the next."""
    column = torch.arange(area.shape[1], device=area.device).expand_as(area)
    last = torch.where(area, column, -gap - 1).cummax(1).values  # the last pixel of the area so far
    before = F.pad(last[:, :-1], (1, 0), value=-gap - 1)
    starts = area & (column - before > gap)
    starts[:, 0] = True  # runs do not continue from the row above
    return starts.flatten().cumsum(0).view_as(area) - 1


def _filled(reached: Tensor, area: Tensor, runs: Tensor) -> Tensor:
    """Return the runs of `area` with a reached pixel, bool (H, W)."""
    found = torch.zeros(int(runs[-1, -1]) + 1, dtype=torch.bool, device=area.device)
    found[runs[reached]] = True
    return area & found[runs]


def _labeled(labels: Tensor, label_set: LabelSet, regions: Sequence[str]) -> Tensor:
    known = label_set.indices([name for name in regions if name in label_set.regions])
    return torch.isin(labels, torch.tensor(known, dtype=labels.dtype, device=labels.device))


def _middle(like: Tensor, half: float) -> Tensor:
    """Return the rectangle in the middle of (H, W) whose sides are `half` of the whole."""
    H, W = like.shape
    middle = torch.zeros_like(like)
    top, left = round(H * (1 - half) / 2), round(W * (1 - half) / 2)
    middle[top : H - top, left : W - left] = True
    return middle
