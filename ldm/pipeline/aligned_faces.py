"""Faces of a photo as training data: aligned images with label maps, or the reason why a face is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ldm.data.images import ImageError
from ldm.data.photo_file import PhotoFile
from ldm.parsing import FaceParser
from ldm.parsing.alignment import Crop, landmarks
from ldm.parsing.photo_faces import MIN_SKIN, find_faces, mirror_agreement
from ldm.pipeline.photo_face import PhotoFace, labeled

MAX_OUTSIDE = 0.25  # fraction of a crop outside the photo, where edge pixels are repeated
MIN_AGREEMENT = 0.85  # fraction of pixels on which the label maps of a crop and of its mirror image agree


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """A face ready for training.

    Attributes:
        image: (3, H, W) in [-1, 1], sRGB, cropped as CelebA-HQ.
        labels: label map, uint8 (h, w), at the resolution of the parser.
    """

    image: Tensor
    labels: Tensor


def aligned_faces(path: Path, parser: FaceParser, size: int, min_size: int) -> Iterator[AlignedFace | str]:
    """Yield each face of a photo, largest first, or the reason why it is dropped.

    Args:
        path: the photo.
        parser: finds and labels the faces.
        size: side of the aligned images in pixels.
        min_size: minimum side of a face crop in the photo, in pixels.
    """
    try:
        file = PhotoFile.open(path)
    except ImageError as error:
        yield str(error).removeprefix(str(path)).lstrip(": ")
        return
    faces = find_faces(Image.fromarray(file.pixels), parser)
    if not faces:
        yield "no face was found; both eyes and the mouth must be visible"
    for i, found in enumerate(faces):
        face = PhotoFace(file, parser, found.crop)
        reason = _too_small(found.side, min_size) or _cut_off(found.crop, file) or _uncertain(face)
        yield f"face {i}: {reason}" if reason else AlignedFace(face.model_input((size, size))[0], face.labels)


def _too_small(side: float, min_size: int) -> str | None:
    if side >= min_size:
        return None
    return f"its crop is {side:.0f} pixels wide, expected at least {min_size} (--min-size)"


def _cut_off(crop: Crop, file: PhotoFile) -> str | None:
    H, W = file.pixels.shape[:2]
    x = np.linspace(-1, 1, 65)
    points = crop.center + crop.axis * (x[None, :] + 1j * x[:, None])
    inside = (points.real >= 0) & (points.real <= W) & (points.imag >= 0) & (points.imag <= H)
    if (outside := 1 - inside.mean()) <= MAX_OUTSIDE:
        return None
    return f"{outside:.0%} of its crop lies outside the photo, expected at most {MAX_OUTSIDE:.0%}"


def _uncertain(face: PhotoFace) -> str | None:
    """Return why the label map of a face cannot be trusted, or None."""
    parser, labels = face.parser, face.labels
    label_set = parser.label_set
    if landmarks(labels, label_set) is None:
        return "the parser finds no eyes or no mouth in its crop"
    if (skin := labeled(labels, label_set.indices(["skin", "nose"])).mean()) < MIN_SKIN:
        return f"the parser finds skin on {skin:.0%} of its crop, expected at least {MIN_SKIN:.0%}"
    image, _ = face.model_input(parser.size)
    if (agreement := mirror_agreement(image, labels, parser)) >= MIN_AGREEMENT:
        return None
    return (
        f"the label maps of its crop and of the mirrored crop agree on {agreement:.0%} of the pixels, "
        f"expected at least {MIN_AGREEMENT:.0%}"
    )
