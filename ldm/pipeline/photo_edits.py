"""Edits of a face in a photo: functions from the photo's CIELAB values to edited ones, at its resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from ldm.data.color_space import ColorSpace
from ldm.data.images import to_uint8
from ldm.pipeline.face_pipeline import FacePipeline
from ldm.pipeline.options import SamplingOptions
from ldm.pipeline.pasting import Edit, enlarge, extended
from ldm.pipeline.photo_face import PhotoFace, as_srgb, labeled
from ldm.pipeline.region_color import Color, lab_of, shifted
from ldm.pipeline.style_code import StyleCode

Detail = Literal["auto", "keep", "replace"]
ColorGroups = Sequence[tuple[Sequence[str], Color]]  # regions that share a mean color
# Largest mean CIELAB distance (CIE76) between photo and reconstruction at which detail "auto" replaces pixels.
MAX_ERROR = 6.0


def recoloring(face: PhotoFace, names: Sequence[str], color: Color) -> Edit:
    """Return the edit that shifts regions to a mean color; shading and texture are kept."""
    mask = face.region(names)
    small, target = face.lab(mask.shape), lab_of(color)
    mean = small[mask > 0].mean(0)
    around = extended(shifted(small, mean, target) - small, mask)

    def edit(lab: np.ndarray, grid: Tensor) -> np.ndarray:
        # Outside the region, pixels are mixtures of region and background: they change like the nearest pixels
        # of the region, independent of their own color.
        inside = enlarge(mask[..., None], grid).clip(0, 1)
        return lab + inside * (shifted(lab, mean, target) - lab) + (1 - inside) * enlarge(around, grid)

    return edit


@torch.no_grad()
def recolored_style(pipe: FacePipeline, face: PhotoFace, groups: ColorGroups) -> StyleCode:
    """Return the style of the face after shifting regions to mean colors."""
    image, labels = face.model_input(pipe.size)
    lab = ColorSpace.srgb().to_lab(to_uint8(image))
    for names, color in groups:
        inside = labeled(labels, pipe.label_set.indices(names))
        if inside.any():
            lab[inside] = shifted(lab[inside], lab[inside].mean(0), lab_of(color))
    style: StyleCode = pipe.read_style(as_srgb(lab), labels)
    return style


@torch.no_grad()
def sampled_edit(
    pipe: FacePipeline,
    face: PhotoFace,
    names: Sequence[str],
    style: StyleCode,
    detail: Detail,
    **options: Unpack[SamplingOptions],
) -> tuple[Edit, Detail]:
    """Return the edit of regions to a style, and whether it keeps or replaces detail.

    Args:
        pipe: the face model.
        face: the face.
        names: the regions.
        style: target style.
        detail: see `Photo.edit`.
        options: see `Sampling`.

    Raises:
        ValueError: the regions have no pixel at the model's resolution, or an invalid option.
    """
    image, labels = face.model_input(pipe.size)
    inside = labeled(labels, pipe.label_set.indices(names))
    if not inside.any():
        raise ValueError(
            f"{face.file.path}: {', '.join(names)} is too small for this model, which works at "
            f'{labels.shape[1]} x {labels.shape[0]} pixels; detail="keep" with a color works at any size'
        )
    own = pipe.read_style(image, labels)
    sampled = pipe(labels, [own, own.swap(style, names)], **options).cpu()  # the same noise for both
    before, after = (ColorSpace.srgb().to_lab(to_uint8(one)) for one in sampled)
    if detail == "auto":
        error = np.linalg.norm(before - ColorSpace.srgb().to_lab(to_uint8(image)), axis=-1)[inside].mean()
        detail = "replace" if 2 * abs(face.crop.axis) <= min(pipe.size) and error <= MAX_ERROR else "keep"
    if detail == "replace":
        return lambda lab, grid: enlarge(after, grid), detail
    change = extended(after - before, inside.astype(np.float32))
    return lambda lab, grid: lab + enlarge(change, grid), detail
