"""PhotoEditor: open any photo, edit regions of a face in it and save it at full resolution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.checkpoints.locate import DEMO, FACE_PARSER
from ldm.data.color_space import ColorSpace
from ldm.data.images import as_unit, to_uint8
from ldm.data.photo_file import PhotoFile
from ldm.parsing import FaceParser
from ldm.parsing.alignment import Crop
from ldm.parsing.photo_faces import Face, cut_face, find_faces
from ldm.pipeline.face_pipeline import FacePipeline
from ldm.pipeline.options import SamplingOptions
from ldm.pipeline.pasting import Edit, enlarge, extended, paste, region_weights, wider
from ldm.pipeline.region_color import Color, lab_of, shifted
from ldm.pipeline.style_code import StyleCode

Detail = Literal["keep", "replace"]
SMALLEST_FACE = 64  # side in pixels of the smallest crop that can be edited: a face box of about 30
LEAST_REGION = 1 / 4000  # share of the crop; smaller regions are parser errors: an eye is ten times as large


class PhotoError(ValueError):
    """The photo cannot be edited as requested."""


class PhotoEditor:
    """Edits photos with a face model and a face parser."""

    def __init__(self, pipe: FacePipeline, parser: FaceParser) -> None:
        """Take a model and a parser with the same regions.

        Raises:
            PhotoError: model and parser have different regions.
        """
        if pipe.label_set.regions != parser.label_set.regions:
            raise PhotoError(
                f"model and parser must have the same regions, got {pipe.label_set.name} and {parser.label_set.name}"
            )
        self.pipe, self.parser = pipe, parser

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path = DEMO,
        parser: str | Path = FACE_PARSER,
        *,
        device: str | torch.device | None = None,
    ) -> PhotoEditor:
        """Load both networks.

        Args:
            checkpoint: argument of `FacePipeline.from_pretrained`; by default the demo weights of the
                repository, trained on synthetic faces.
            parser: argument of `FaceParser.from_pretrained`; by default the parser of the repository.
            device: "cpu", "cuda" or "mps"; by default the fastest available.

        Raises:
            CheckpointError: a checkpoint cannot be loaded. PhotoError: model and parser have different
                regions.
        """
        pipe = FacePipeline.from_pretrained(checkpoint, device=device)
        return cls(pipe, FaceParser.from_pretrained(parser, device=device))

    def open(self, path: str | Path) -> Photo:
        """Read a photo and detect its faces.

        Raises:
            ImageError: the file cannot be read as a photo. PhotoError: no face was found.
        """
        file = PhotoFile.open(path)
        faces = [
            face
            for face in find_faces(Image.fromarray(file.pixels), self.parser)
            if face.side >= SMALLEST_FACE
        ]
        if not faces:
            raise PhotoError(
                f"{path}: no face was found; both eyes and the mouth must be visible, "
                f"and head and hair together at least {SMALLEST_FACE} pixels wide"
            )
        return Photo(self, file, tuple(faces))


@dataclass(frozen=True, eq=False)
class Photo:
    """An opened photo.

    Attributes:
        editor: the editor that opened the photo.
        file: pixels and metadata.
        faces: detected faces, largest first.
    """

    editor: PhotoEditor
    file: PhotoFile
    faces: tuple[Face, ...]

    def labels(self, face: int = 0) -> Tensor:
        """Return the label map of a face, uint8 (H, W), at the resolution of the parser."""
        return self._parsed(self.faces[face].crop)

    def style(self, face: int = 0) -> StyleCode:
        """Return the style of a face."""
        style: StyleCode = self.editor.pipe.read_style(*self._input(face))
        return style

    def random_style(self, face: int = 0) -> StyleCode:
        """Return the null style of a face, for which sampling draws a random appearance."""
        style: StyleCode = self.editor.pipe.random_style(self._input(face)[1])
        return style

    @torch.no_grad()
    def edit(
        self,
        face: int = 0,
        *,
        style: StyleCode | Photo | None = None,
        color: Color | None = None,
        regions: Sequence[str],
        strength: float = 1.0,
        detail: Detail = "keep",
        **options: Unpack[SamplingOptions],
    ) -> EditedPhoto:
        """Edit regions of a face; all other pixels keep their bytes.

        Args:
            face: index into `faces`.
            style: target style, or a photo whose largest face provides it.
            color: target mean colour of the regions instead of a style: `#7a3b2e`, a name, or sRGB in 0..255.
            regions: region names, such as hair or u_lip.
            strength: scale of the change in CIELAB, from 0 (unchanged) to 1 (full edit).
            detail: "keep" adds the difference between the sampled edit and a sampled reconstruction, which
                preserves strands, pores and grain; "replace" pastes the sampled pixels.
            options: sampling options such as `seed`, see `Sampling`.

        Raises:
            PhotoError: no such face or region in the photo, both or neither of style and color, or a value
                out of range. ValueError: an unknown colour or region, or an invalid sampling option.
        """
        self._check(face, style, color, regions, strength, detail)
        crop, file = self.faces[face].crop, self.file
        mask = self._inside(self.labels(face), regions)
        if color is not None and detail == "keep":
            edit = self._recoloring(face, mask, color)
        else:
            edit = self._sampled(face, style, color, regions, detail, options)
        # Sampled pixels are limited to the crop; a change of colour can extend beyond it.
        around = self._inside(self._parsed(wider(crop)), regions) if detail == "keep" else None
        weights = region_weights(file.pixels, file.space, crop, mask, around)
        pixels = paste(file.pixels, file.space, weights, crop, edit, strength)
        recipe = {
            "format": "sca-dm photo edit 1",
            "model": self.editor.pipe.name,
            "face": face,
            "regions": list(regions),
            "color": color,
            "strength": strength,
            "detail": detail,
            "options": {key: value for key, value in options.items() if key not in ("progress", "preview")},
        }
        return EditedPhoto(file, pixels, weights, json.dumps(recipe))

    def _recoloring(self, face: int, mask: np.ndarray, color: Color) -> Edit:
        """Return the edit that shifts a region (H, W) of a face to a mean colour."""
        small = ColorSpace.srgb().to_lab(to_uint8(self._cut(self.faces[face].crop, mask.shape)))
        mean, target = small[mask > 0].mean(0), lab_of(color)
        around = extended(shifted(small, mean, target) - small, mask)

        def edit(lab: np.ndarray, grid: Tensor) -> np.ndarray:
            # Outside the region, pixels are mixtures of region and background: they change like the nearest pixels
            # of the region, independent of their own colour.
            inside = enlarge(mask[..., None], grid).clip(0, 1)
            return lab + inside * (shifted(lab, mean, target) - lab) + (1 - inside) * enlarge(around, grid)

        return edit

    def _sampled(
        self,
        face: int,
        style: StyleCode | Photo | None,
        color: Color | None,
        regions: Sequence[str],
        detail: Detail,
        options: SamplingOptions,
    ) -> Edit:
        """Return the edit of the model: sampled pixels, or their difference from a reconstruction."""
        image, labels = self._input(face)
        own = self.editor.pipe.read_style(image, labels)
        inside = self._inside(labels, regions)
        if not inside.any():
            raise PhotoError(
                f"{self.file.path}: {', '.join(regions)} of face {face} is too small for this model, which works at "
                f'{labels.shape[1]} x {labels.shape[0]} pixels; detail="keep" with a color works at any size'
            )
        if color is not None:
            source: StyleCode | None = self._recolored(image, labels, inside > 0, color)
        else:
            source = style.style() if isinstance(style, Photo) else style
        assert source is not None  # _check
        sampled = self.editor.pipe(labels, [own, own.swap(source, regions)], **options).cpu()
        before, after = (ColorSpace.srgb().to_lab(to_uint8(one)) for one in sampled)
        if detail == "replace":
            return lambda lab, grid: enlarge(after, grid)
        change = extended(after - before, inside)
        return lambda lab, grid: lab + enlarge(change, grid)

    def _check(
        self,
        face: int,
        style: StyleCode | Photo | None,
        color: Color | None,
        regions: Sequence[str],
        strength: float,
        detail: str,
    ) -> None:
        if not 0 <= face < len(self.faces):
            raise PhotoError(f"{self.file.path}: face must be in 0..{len(self.faces) - 1}, got {face}")
        if (style is None) == (color is None):
            raise PhotoError("give either a style or a color for the regions")
        if not 0 <= strength <= 1:
            raise PhotoError(f"strength must be in [0, 1], got {strength}")
        if detail not in get_args(Detail):
            raise PhotoError(f"detail must be one of {', '.join(get_args(Detail))}, got {detail!r}")
        if not regions:
            raise PhotoError("regions must name at least one region, such as hair")
        found = self.labels(face)

        def share(label: int) -> float:
            return float((found == label).float().mean())

        for region in regions:
            if share(self.editor.parser.label_set.index(region)) < LEAST_REGION:
                names = enumerate(self.editor.parser.label_set.regions)
                seen = [name for i, name in names if share(i) >= LEAST_REGION]
                raise PhotoError(f"{self.file.path}: face {face} shows no {region}; it has {', '.join(seen)}")

    def _input(self, face: int) -> tuple[Tensor, Tensor]:
        """Return the input of the model: the face (3, H, W) in sRGB and [-1, 1], and its label map (H, W)."""
        size = self.editor.pipe.size
        labels = F.interpolate(self.labels(face)[None, None].float(), size=size, mode="nearest-exact")
        return self._cut(self.faces[face].crop, size), labels[0, 0].to(torch.uint8)

    def _parsed(self, crop: Crop) -> Tensor:
        return self.editor.parser.parse(self._cut(crop, self.editor.parser.size))

    def _cut(self, crop: Crop, size: tuple[int, int]) -> Tensor:
        srgb = ColorSpace.srgb().from_lab(self.file.space.to_lab(to_uint8(cut_face(self._image, crop, size))))
        return as_unit(torch.from_numpy((255 * srgb).round().astype(np.uint8)).permute(2, 0, 1))

    @cached_property
    def _image(self) -> Image.Image:
        return Image.fromarray(self.file.pixels)

    def _inside(self, labels: Tensor, regions: Sequence[str]) -> np.ndarray:
        numbers = torch.tensor(self.editor.pipe.label_set.indices(regions), dtype=labels.dtype)
        return torch.isin(labels.cpu(), numbers).float().numpy()

    def _recolored(self, image: Tensor, labels: Tensor, inside: np.ndarray, color: Color) -> StyleCode:
        """Return the style of the face after shifting the pixels `inside` to a mean colour."""
        srgb = ColorSpace.srgb()
        lab = srgb.to_lab(to_uint8(image))
        lab[inside] = shifted(lab[inside], lab[inside].mean(0), lab_of(color))
        pixels = torch.from_numpy((255 * srgb.from_lab(lab)).round().astype(np.uint8)).permute(2, 0, 1)
        style: StyleCode = self.editor.pipe.read_style(as_unit(pixels), labels)
        return style


@dataclass(frozen=True, eq=False)
class EditedPhoto:
    """An edited photo.

    Attributes:
        file: source photo.
        pixels: uint8 (H, W, 3), upright, in the photo's colour space.
        matte: float32 (H, W) in [0, 1], weight of the edit; pixels with 0 keep their bytes.
        recipe: parameters of the edit, as JSON.
    """

    file: PhotoFile
    pixels: np.ndarray
    matte: np.ndarray
    recipe: str

    def save(self, path: str | Path, *, gps: bool = False) -> None:
        """Save with the size, orientation and colour profile of the photo; the suffix selects the format.

        Raises:
            ImageError: an unknown suffix, or the path of the source photo.
        """
        self.file.save(path, self.pixels, self.recipe, gps=gps)
