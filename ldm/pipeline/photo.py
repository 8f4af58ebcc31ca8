"""Photo: an opened photo with its faces, and the edits of their regions."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from ldm.data.photo_file import PhotoFile
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import Face
from ldm.pipeline.face_pipeline import FacePipeline
from ldm.pipeline.options import SamplingOptions, is_integer, stored_options, validate_options
from ldm.pipeline.pasting import Edit, paste
from ldm.pipeline.photo_edits import ColorGroups, Detail, recolored_style, recoloring, sampled_edit
from ldm.pipeline.photo_face import FaceLabels, PhotoFace
from ldm.pipeline.region_color import Color, rgb_of
from ldm.pipeline.style_code import StyleCode

FORMAT = "sca-dm photo edit 1"


class PhotoError(ValueError):
    """The photo cannot be edited as requested."""


class MissingRegionError(PhotoError):
    """A face does not show a region that is to be edited.

    Attributes:
        face: index of the face.
        region: name of the region.
        visible: names of the regions that the face shows.
    """

    def __init__(self, path: Path, face: int, region: str, visible: Sequence[str]) -> None:
        super().__init__(f"{path}: face {face} has no region {region!r}; it has {', '.join(visible)}")
        self.face, self.region, self.visible = face, region, tuple(visible)


@dataclass(frozen=True, eq=False)
class Photo:
    """An opened photo.

    Attributes:
        pipe: the face model.
        parser: the face parser.
        file: pixels and metadata.
        faces: detected faces, largest first.
        label_map: uint8 (H, W) of the photo's size that replaces the parser's label maps; None for those.
        face_labels: label maps by index into `faces` that replace the parser's, such as those from before an
            earlier edit, or painted ones.
    """

    pipe: FacePipeline
    parser: FaceParser
    file: PhotoFile
    faces: tuple[Face, ...]
    label_map: np.ndarray | None = None
    face_labels: Mapping[int, FaceLabels] = field(default_factory=dict)
    _opened: dict[int, PhotoFace] = field(default_factory=dict, init=False, repr=False)

    def labels(self, face: int = 0) -> Tensor:
        """Return the label map of a face's crop, uint8 (H, W), at the resolution of the parser."""
        return self._face(face).labels

    def label_maps(self, face: int = 0) -> FaceLabels:
        """Return the label maps of a face's crop and of its surroundings, for `face_labels`."""
        found = self._face(face)
        return found.known or FaceLabels(found.labels, found.labels_around)

    def labels_in_photo(self, face: int = 0) -> np.ndarray:
        """Return the label map of a face and its surroundings, uint8 (H, W) of the photo's size, 0 elsewhere."""
        return self._face(face).labels_in_photo()

    def with_labels(self, label_map: np.ndarray) -> Photo:
        """Return the photo with another label map, uint8 (H, W) of the photo's size, for all its faces.

        Raises:
            PhotoError: another size.
        """
        (H, W), shape = self.file.pixels.shape[:2], tuple(label_map.shape)
        if shape != (H, W):
            found = f"{shape[1]} x {shape[0]}" if len(shape) == 2 else f"an array of shape {shape}"
            raise PhotoError(
                f"{self.file.path}: the label map must have the photo's {W} x {H} pixels, got {found}"
            )
        return replace(self, label_map=label_map, face_labels={})

    def style(self, face: int = 0) -> StyleCode:
        """Return the style of a face."""
        style: StyleCode = self.pipe.read_style(*self._face(face).model_input(self.pipe.size))
        return style

    def null_style(self, face: int = 0) -> StyleCode:
        """Return the null style of a face, for which sampling draws a random appearance."""
        style: StyleCode = self.pipe.null_style(self._face(face).model_input(self.pipe.size)[1])
        return style

    @torch.no_grad()
    def edit(
        self,
        face: int = 0,
        *,
        style: StyleCode | Photo | None = None,
        color: Color | Mapping[str, Color] | None = None,
        regions: Sequence[str] | None = None,
        strength: float = 1.0,
        detail: Detail = "auto",
        **options: Unpack[SamplingOptions],
    ) -> EditedPhoto:
        """Edit regions of a face; all other pixels keep their bytes.

        Args:
            face: index into `faces`.
            style: target style, or a photo whose largest face provides it.
            color: target mean color of the regions instead of a style: `#7a3b2e`, a name, or sRGB in 0..255;
                or one for each region, by name. Regions of one color share their mean.
            regions: region names, such as hair or u_lip; None if `color` names them.
            strength: scale of the change in CIELAB, from 0 (unchanged) to 1 (full edit).
            detail: "keep" adds the difference between the sampled edit and a sampled reconstruction, which
                preserves strands, pores and grain; "replace" pastes the sampled pixels; "auto" replaces only
                if the crop is no larger than the model's images and the model reconstructs the regions well.
                With a color, "auto" means "keep", which shifts the photo's own pixels and samples nothing.
            options: sampling options such as `seed` (one integer), see `Sampling`; they have no effect where
                nothing is sampled.

        Raises:
            PhotoError: no such face or region in the photo, both or neither of style and color, or a value
                out of range. ValueError: an unknown color or region, or an invalid sampling option.
        """
        seed = validate_options(**options).seed
        if not is_integer(seed):
            raise PhotoError(f"seed must be one integer for a photo, got {seed!r}")
        if (style is None) == (color is None):
            raise PhotoError("give either a style or a color for the regions")
        groups = _grouped(color, regions)
        names = [name for group, _ in groups for name in group]
        self._check(face, names, strength, detail)
        samples = color is None or detail == "replace"
        unused = [] if samples else [name for name in options if name not in ("progress", "preview")]
        if unused:
            warnings.warn(
                f'no effect on a color with detail="{detail}", which samples nothing: {", ".join(unused)}',
                stacklevel=3,
            )
        edits, detail = self._edits(self._face(face), style, groups, detail, options)
        pixels, weights = self._pasted(self._face(face), edits, strength, around=detail == "keep")
        recipe = {
            "format": FORMAT,
            "model": self.pipe.fingerprint,
            "face": int(face),
            "regions": names,
            "color": _plain(color),
            "strength": float(strength),
            "detail": detail,
            "labels": self._digest_of_labels(face),
            "precision": self.pipe.precision if samples else None,
            "options": stored_options(options) if samples else {},
        }
        return EditedPhoto(self.file, pixels, weights, json.dumps(recipe))

    def _edits(
        self,
        face: PhotoFace,
        style: StyleCode | Photo | None,
        groups: ColorGroups,
        detail: Detail,
        options: SamplingOptions,
    ) -> tuple[list[tuple[Sequence[str], Edit]], Detail]:
        """Return the edits by region, and whether they keep or replace detail."""
        if style is None and detail != "replace":
            return [(names, recoloring(face, names, color)) for names, color in groups], "keep"
        if isinstance(style, Photo):
            style = style.style()
        source = recolored_style(self.pipe, face, groups) if style is None else style
        names = [name for group, _ in groups for name in group]
        edit, detail = sampled_edit(self.pipe, face, names, source, detail, **options)
        return [(names, edit)], detail

    def _pasted(
        self, face: PhotoFace, edits: Sequence[tuple[Sequence[str], Edit]], strength: float, *, around: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels after all edits, and the largest weight of each pixel."""
        pixels = self.file.pixels
        largest = np.zeros(pixels.shape[:2], np.float32)
        for names, edit in edits:
            # Sampled pixels are limited to the crop; a change of color can extend beyond it.
            weights = face.weights(names, around=around)
            pixels = paste(pixels, self.file.space, weights, face.crop, edit, strength)
            np.maximum(largest, weights, out=largest)
        return pixels, largest

    def _check(self, face: int, names: Sequence[str], strength: float, detail: str) -> None:
        opened = self._face(face)
        if not 0 <= strength <= 1:
            raise PhotoError(f"strength must be in [0, 1], got {strength}")
        if detail not in get_args(Detail):
            raise PhotoError(f"detail must be one of {', '.join(get_args(Detail))}, got {detail!r}")
        self.parser.label_set.indices(names)
        for name in names:
            if not opened.shows(name):
                raise MissingRegionError(self.file.path, face, name, opened.visible_regions())

    def _digest_of_labels(self, face: int) -> str | None:
        """Return a digest of the label map that a user gave; None for the parser's."""
        known = self.face_labels.get(face)
        painted = known.crop.cpu().numpy() if known is not None and known.painted else self.label_map
        return None if painted is None else hashlib.sha256(painted.tobytes()).hexdigest()[:16]

    def _face(self, index: int) -> PhotoFace:
        if not (is_integer(index) and 0 <= index < len(self.faces)):
            count = len(self.faces)
            raise PhotoError(
                f"{self.file.path}: has {count} face{'s' * (count != 1)}, numbered from 0, got face {index}"
            )
        if index not in self._opened:
            others = tuple(face.crop for i, face in enumerate(self.faces) if i != index)
            crop = self.faces[index].crop
            known = self.face_labels.get(index)
            self._opened[index] = PhotoFace(self.file, self.parser, crop, others, self.label_map, known)
        return self._opened[index]


@dataclass(frozen=True, eq=False)
class EditedPhoto:
    """An edited photo.

    Attributes:
        file: source photo.
        pixels: uint8 (H, W, 3), upright, in the photo's color space.
        matte: float32 (H, W) in [0, 1], weight of the edit; pixels with 0 keep their bytes.
        recipe: parameters of the edit, as JSON.
    """

    file: PhotoFile
    pixels: np.ndarray
    matte: np.ndarray
    recipe: str

    def with_metadata(self, **entries: Any) -> EditedPhoto:
        """Return the photo with more entries in its recipe."""
        return replace(self, recipe=json.dumps({**json.loads(self.recipe), **entries}))

    def save(self, path: str | Path, *, gps: bool = False) -> None:
        """Save with the size, orientation and color profile of the photo; the suffix selects the format.

        Raises:
            ImageError: an unknown suffix, or the path of the source photo.
        """
        self.file.save(path, self.pixels, self.recipe, gps=gps)


def _grouped(
    color: Color | Mapping[str, Color] | None, regions: Sequence[str] | None
) -> list[tuple[list[str], Any]]:
    """Return regions with their color, those of the same color together."""
    if isinstance(color, Mapping):
        if regions is not None:
            raise PhotoError("color names its regions already; remove regions")
        groups: dict[tuple[int, int, int], tuple[list[str], Color]] = {}
        for name, one in color.items():
            groups.setdefault(rgb_of(one), ([], one))[0].append(name)
        found: list[tuple[list[str], Any]] = list(groups.values())
    else:
        if color is not None:
            rgb_of(color)  # fail before anything is computed
        found = [(list(regions), color)] if regions else []
    if not found:
        raise PhotoError("regions must name at least one region, such as hair")
    return found


def _plain(color: Color | Mapping[str, Color] | None) -> Any:
    """Return a color, or colors by region, as values that JSON can store: names stay names."""
    if isinstance(color, Mapping):
        return {name: _plain(one) for name, one in color.items()}
    return color if color is None or isinstance(color, str) else list(rgb_of(color))
