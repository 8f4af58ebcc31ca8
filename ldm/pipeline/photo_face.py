"""PhotoFace: one face of a photo, its pixels, label maps and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.color_space import ColorSpace
from ldm.data.images import as_unit, to_uint8
from ldm.data.photo_file import PhotoFile
from ldm.parsing import FaceParser
from ldm.parsing.alignment import Crop, wider
from ldm.parsing.head_regions import attached_regions, nearest_face
from ldm.parsing.photo_faces import cut_face
from ldm.parsing.photo_labels import cut_labels, place_labels
from ldm.pipeline.pasting import region_weights

MIN_REGION = 1 / 4000  # fraction of the crop; smaller regions are parser errors: an eye is ten times as large


@dataclass(frozen=True, eq=False)
class FaceLabels:
    """Label maps of a face.

    Attributes:
        crop: of the crop, uint8 (H, W).
        around: of the wider crop, uint8 (H, W).
        painted: a user painted the crop's, so that none of its pixels is an error of the parser.
    """

    crop: Tensor
    around: Tensor
    painted: bool = False


@dataclass(frozen=True, eq=False)
class PhotoFace:
    """A face of an opened photo.

    Attributes:
        file: the photo.
        parser: labels the regions.
        crop: CelebA-HQ's crop around the face, in pixels of the photo.
        others: crops of the other faces in the photo.
        label_map: uint8 (H, W) of the photo's size that replaces the parser's label maps; None for those.
        known: label maps that replace the parser's; None for those.
    """

    file: PhotoFile
    parser: FaceParser
    crop: Crop
    others: tuple[Crop, ...] = ()
    label_map: np.ndarray | None = None
    known: FaceLabels | None = None

    @cached_property
    def labels(self) -> Tensor:
        """Label map of the crop, uint8 (H, W), at the resolution of the parser."""
        return self._labels_of(self.crop) if self.known is None else self.known.crop

    @cached_property
    def labels_around(self) -> Tensor:
        """Label map of the wider crop, uint8 (H, W), at the resolution of the parser."""
        return self._labels_of(wider(self.crop)) if self.known is None else self.known.around

    def labels_in_photo(self) -> np.ndarray:
        """Return the label map of the face and its surroundings, uint8 (H, W) of the photo's size, 0 elsewhere."""
        if self.label_map is not None:
            return self.label_map
        placed = np.zeros(self.file.pixels.shape[:2], np.uint8)
        place_labels(placed, wider(self.crop), self.labels_around)
        place_labels(placed, self.crop, self.labels)
        return placed

    def model_input(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the face in sRGB, (3, *size) in [-1, 1], and its label map, uint8 `size`."""
        labels = F.interpolate(self.labels[None, None].float(), size=size, mode="nearest-exact")
        return self._cut(self.crop, size), labels[0, 0].to(torch.uint8)

    def lab(self, size: tuple[int, ...]) -> np.ndarray:
        """Return the face in CIELAB, float32 (*size, 3)."""
        return ColorSpace.srgb().to_lab(to_uint8(self._cut(self.crop, (size[0], size[1]))))

    def region(self, names: Sequence[str]) -> np.ndarray:
        """Return the pixels of regions in the crop, float32 (H, W), 0 or 1."""
        return self._inside(self.crop, self.labels, names, 1.0)

    def visible_regions(self) -> list[str]:
        """Return the names of the regions that the crop shows."""
        return [name for name in self.parser.label_set.regions if self.shows(name)]

    def shows(self, name: str) -> bool:
        """Return whether the crop shows a region."""
        return bool(self.region([name]).mean() >= MIN_REGION)

    def weights(self, names: Sequence[str], *, around: bool) -> np.ndarray:
        """Return the weights of an edit of regions, float32 (H, W) of the photo's size, in [0, 1].

        Args:
            names: the regions.
            around: include what lies beyond the crop, up to the wider crop; else the weights end at its edge.
        """
        outside = None
        if around:
            outer = wider(self.crop)
            outside = self._inside(outer, self.labels_around, names, abs(outer.axis / self.crop.axis))
        return region_weights(self.file.pixels, self.file.space, self.crop, self.region(names), outside)

    def _labels_of(self, crop: Crop) -> Tensor:
        if self.label_map is not None:
            return cut_labels(self.label_map, crop, self.parser.size)
        return self.parser.parse(self._cut(crop, self.parser.size))

    def _cut(self, crop: Crop, size: tuple[int, int]) -> Tensor:
        """Return a crop of the photo in sRGB, (3, *size) in [-1, 1]."""
        pixels = to_uint8(cut_face(self._image, crop, size))
        return as_srgb(self.file.space.to_lab(pixels))

    @cached_property
    def _image(self) -> Image.Image:
        return Image.fromarray(self.file.pixels)

    def _inside(self, crop: Crop, labels: Tensor, names: Sequence[str], reach: float) -> np.ndarray:
        painted = self.known is not None and self.known.painted and labels is self.known.crop
        if painted or self.label_map is not None:  # by the user: nothing in it is an error of the parser
            return labeled(labels, self.parser.label_set.indices(names)).astype(np.float32)
        inside = attached_regions(labels, self.parser.label_set, names, reach).cpu()
        others = [Crop(other.center, reach * other.axis) for other in self.others]
        inside &= nearest_face(crop, others, (labels.shape[0], labels.shape[1]))
        return inside.float().numpy()


def labeled(labels: Tensor, numbers: Sequence[int]) -> np.ndarray:
    """Return where a label map (H, W) has one of the labels, bool (H, W)."""
    return torch.isin(labels, torch.tensor(numbers, dtype=labels.dtype, device=labels.device)).cpu().numpy()


def as_srgb(lab: np.ndarray) -> Tensor:
    """Return CIELAB (H, W, 3) in sRGB, (3, H, W) in [-1, 1], rounded to bytes."""
    codes = (255 * ColorSpace.srgb().from_lab(lab)).round().astype(np.uint8)
    return as_unit(torch.from_numpy(codes).permute(2, 0, 1))
