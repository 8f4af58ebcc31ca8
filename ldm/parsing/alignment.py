"""Align faces as CelebA-HQ does, from the label maps of a face parser; no landmark network is needed.

The crop is that of CelebA-HQ and FFHQ (Karras et al., arXiv 1710.10196, appendix C): upright, with a side
that follows from the distances between the eyes, and from the eyes to the mouth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.labels import LabelSet
from ldm.parsing.face_parser import FaceParser

PASSES = 4  # at most; each crop is found in the previous one
SETTLED = 0.01  # of the crop's half side: a smaller change ends the iteration
SMALLEST_PART = 4  # pixels; with fewer, the center of an eye is unreliable
WIDER = 1.5  # side of the wider crop, relative to the crop
SEEN_AT = 256  # side of the intermediate crops that are parsed

Point = complex  # x + i y: rotation and scaling are products


class AlignmentError(ValueError):
    """No face was found; the message says what to do."""


@dataclass(frozen=True)
class Crop:
    """A square crop of a photo, possibly rotated.

    Attributes:
        center: in pixels.
        axis: from the center to the middle of the right edge.
    """

    center: Point
    axis: Point

    def point(self, x: float, y: float) -> Point:
        """Map crop coordinates, each in [-1, 1], to photo coordinates."""
        return self.center + self.axis * complex(x, y)

    def cut(self, photo: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the crop of (3, H, W) as (3, *size); outside the photo, edge pixels are repeated."""
        shrink = 2 * abs(self.axis) / max(size)
        H, W = photo.shape[-2:]
        if shrink > 1:  # with antialiasing, which grid_sample lacks
            H, W = max(1, round(H / shrink)), max(1, round(W / shrink))
        small = F.interpolate(photo[None], size=(H, W), mode="bicubic", antialias=True, align_corners=False)
        sx, sy = 2 / photo.shape[-1], 2 / photo.shape[-2]
        a, c = self.axis, self.center
        moves = [[a.real * sx, -a.imag * sx, c.real * sx - 1], [a.imag * sy, a.real * sy, c.imag * sy - 1]]
        where = F.affine_grid(torch.tensor([moves]), [1, 3, *size], align_corners=False)
        cut = F.grid_sample(small, where, mode="bicubic", padding_mode="border", align_corners=False)
        return cut[0].clamp(-1, 1)


def quantize_8bit(image: Tensor) -> Tensor:
    """Round values in [-1, 1] to the 256 levels of an 8-bit file, so that saving is lossless."""
    return ((image + 1) * 127.5).round() / 127.5 - 1


def crop_around(left_eye: Point, right_eye: Point, mouth: Point) -> Crop:
    """Return the crop that CelebA-HQ takes around three points of a face; left and right as the photo shows them."""
    eyes = (left_eye + right_eye) / 2
    across, down = right_eye - left_eye, mouth - eyes
    direction = across - 1j * down  # both give the direction of the right edge
    side = max(2.0 * abs(across), 1.8 * abs(down))
    return Crop(eyes + 0.1 * down, side * direction / abs(direction))


def landmarks(labels: Tensor, label_set: LabelSet) -> tuple[Point, Point, Point] | None:
    """Return the centers of both eyes and of the mouth in a label map (H, W), each axis from -1 to 1.

    If glasses hide an eye, each half of the glasses replaces an eye. None if a part is not visible.
    """
    eyes = [_center(labels, label_set, [name]) for name in ("l_eye", "r_eye")]
    if None in eyes:
        eyes = _halves(labels, label_set, "eye_g")
    mouth = _center(labels, label_set, ["mouth", "u_lip", "l_lip"])
    left, right = (
        sorted((eye for eye in eyes if eye is not None), key=lambda eye: eye.real)
        if None not in eyes
        else (None,) * 2
    )
    if left is None or right is None or mouth is None or abs(left - right) < 1e-6:
        return None
    return left, right, mouth


def wider(crop: Crop) -> Crop:
    """Return the surrounding crop, which contains hair beyond the face crop."""
    return Crop(crop.center, WIDER * crop.axis)


def crop_grid(crop: Crop, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Return crop coordinates of the pixels of a window, (H, W, 2), in [-1, 1] inside the crop."""
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
    dx, dy = x - np.float32(crop.center.real), y - np.float32(crop.center.imag)
    inverse = 1 / crop.axis
    places = np.stack(
        [dx * inverse.real - dy * inverse.imag, dx * inverse.imag + dy * inverse.real], -1, dtype=np.float32
    )
    return torch.from_numpy(places)


def settle(photo: Tensor, crop: Crop, parser: FaceParser) -> Crop | None:
    """Return the crop in which the parser finds the face at its aligned position; None without a face."""
    for _ in range(PASSES):
        found = landmarks(parser.parse(crop.cut(photo, (SEEN_AT, SEEN_AT))), parser.label_set)
        if found is None:
            return None
        better = crop_around(*(crop.point(place.real, place.imag) for place in found))
        moved = abs(better.center - crop.center) + abs(better.axis - crop.axis)
        crop = better
        if moved < SETTLED * abs(crop.axis):
            break
    return crop


def whole_photo_crops(width: int, height: int) -> list[Crop]:
    """Return the initial crops: the whole photo, its middle, the middle of its upper part."""
    center, half, short = complex(width, height) / 2, max(width, height) / 2, min(width, height) / 2
    upper = complex(width / 2, short * 0.9)
    return [Crop(center, half), Crop(center, short), Crop(upper, short), Crop(upper, short / 2)]


def _center(labels: Tensor, label_set: LabelSet, regions: list[str]) -> Point | None:
    numbers = torch.tensor(label_set.indices(regions), dtype=labels.dtype, device=labels.device)
    return _middle(torch.isin(labels, numbers))


def _middle(inside: Tensor) -> Point | None:
    """Return the centroid of a mask (H, W), each axis from -1 to 1."""
    y, x = inside.nonzero(as_tuple=True)
    if len(x) < SMALLEST_PART:
        return None
    H, W = inside.shape
    return complex((2 * float(x.double().mean()) + 1) / W - 1, (2 * float(y.double().mean()) + 1) / H - 1)


def _halves(labels: Tensor, label_set: LabelSet, region: str) -> list[Point | None]:
    """Return the centroids of the two halves of a region, left and right of its centroid."""
    inside = labels == label_set.index(region)
    whole = _middle(inside)
    if whole is None or not math.isfinite(whole.real):
        return [None, None]
    column = round((whole.real + 1) * labels.shape[1] / 2)
    left, right = inside.clone(), inside.clone()
    left[:, column:], right[:, :column] = False, False
    return [_middle(left), _middle(right)]
