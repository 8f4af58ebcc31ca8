"""Face detection: where faces may be in a photo, before the face parser looks at any of them.

dlib's detector (histograms of oriented gradients; five templates: frontal, turned left and right, tilted left
and right) finds faces of 80 pixels and more that tilt up to 30 degrees. Scans of an enlarged and of a turned
photo extend that to 40 pixels and 60 degrees. `docs/photos.md` has figures.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

TEMPLATE = 80  # side of dlib's templates in pixels: it finds no smaller face
SMALLEST = 40  # side in pixels of the smallest face box that is worth an edit
TILTED = 30  # degrees between two scans
UPRIGHT_PIXELS, TILTED_PIXELS = 12_000_000, 3_000_000  # that a scan looks at: a second, and a quarter
MAX_SCAN_PIXELS = 400_000_000  # of a thorough scan: 100 megapixels enlarged twofold
BAND_ROWS = 4096  # rows scanned at once, which bounds the memory
THRESHOLD, TILTED_THRESHOLD = 0.0, 0.2  # of dlib's score; a turned photo shows more that looks like a face
TEMPLATE_TILT = (
    0.0,
    0.0,
    0.0,
    20.0,
    -20.0,
)  # degrees counter-clockwise at which dlib's five templates fit best

Point = complex


class DetectionError(ImportError):
    """The detector is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Candidate:
    """A box that may hold a face.

    Attributes:
        center: x + i y in pixels of the photo.
        side: of the box in pixels, about brows to chin.
        tilt: degrees counter-clockwise by which the face is turned in the image plane, roughly.
        score: the detector's, higher is more certain.
    """

    center: Point
    side: float
    tilt: float
    score: float


def find_candidates(photo: Image.Image, smallest: float | None = None) -> list[Candidate]:
    """Return what may be faces in an upright photo, largest first.

    Args:
        photo: any mode that converts to gray.
        smallest: side in pixels of the smallest box to find; None for 40, or for as small as scans of
            12 megapixels (upright) and 3 megapixels (tilted) find.

    Raises:
        DetectionError: dlib is not installed.
    """
    gray = photo.convert("L")
    area = gray.width * gray.height
    found: list[Candidate] = []
    for tilt, budget in ((0, UPRIGHT_PIXELS), (TILTED, TILTED_PIXELS), (-TILTED, TILTED_PIXELS)):
        scale = TEMPLATE / SMALLEST
        if smallest is None:
            scale = min(scale, math.sqrt(budget / area))
        else:
            scale = min(TEMPLATE / smallest, math.sqrt(MAX_SCAN_PIXELS / area))
        found += _scan(gray, scale, tilt)
    return without_duplicates(found)


def without_duplicates(candidates: list[Candidate]) -> list[Candidate]:
    """Keep of overlapping boxes the one with the highest score; largest first."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda candidate: -candidate.score):
        if not any(overlap(one.center, one.side, other.center, other.side) for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda candidate: -candidate.side)


def overlap(center: Point, side: float, other_center: Point, other_side: float) -> bool:
    """Return whether two boxes are of one face: the center of either lies within half a side of the other's."""
    return abs(center - other_center) < 0.5 * max(side, other_side)


def _scan(gray: Image.Image, scale: float, tilt: float) -> list[Candidate]:
    """Return the candidates in a photo that is first resized, then turned clockwise by `tilt` degrees."""
    size = max(1, round(gray.width * scale)), max(1, round(gray.height * scale))
    resized = gray.resize(size, Image.Resampling.BILINEAR if scale > 1 else Image.Resampling.BOX)
    turned = resized.rotate(-tilt, Image.Resampling.BILINEAR, expand=True, fillcolor=128) if tilt else resized
    pixels = np.asarray(turned)
    threshold = TILTED_THRESHOLD if tilt else THRESHOLD
    back = cmath.exp(-1j * math.radians(tilt))  # y points down: counter-clockwise is a negative angle
    middle, turned_middle = complex(*size) / 2, complex(turned.width, turned.height) / 2
    found = []
    for top in range(0, max(1, pixels.shape[0]), BAND_ROWS * 3 // 4):  # bands overlap by a quarter
        boxes, scores, templates = _detector().run(
            np.ascontiguousarray(pixels[top : top + BAND_ROWS]), 0, threshold
        )
        for box, score, template in zip(boxes, scores, templates, strict=True):
            center = complex(box.left() + box.right() + 1, box.top() + box.bottom() + 1 + 2 * top) / 2
            place = (middle + (center - turned_middle) * back) / scale
            found.append(
                Candidate(place, box.width() / scale, tilt + TEMPLATE_TILT[int(template)], float(score))
            )
        if top + BAND_ROWS >= pixels.shape[0]:
            break
    return found


@cache
def _detector() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise DetectionError("face detection needs dlib: pip install dlib-bin") from error
    return dlib.get_frontal_face_detector()
