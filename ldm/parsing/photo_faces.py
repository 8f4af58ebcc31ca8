"""Every face in a photo: candidates of the detector, each confirmed and aligned by the face parser."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.images import to_tensor
from ldm.parsing.alignment import AlignmentError, Crop, quantize_8bit, settle, whole_photo_crops
from ldm.parsing.detection import Candidate, find_candidates, overlap
from ldm.parsing.face_parser import FaceParser

MAX_FACES = 50  # the largest candidates that the parser looks at
WINDOW = 2.0  # half side of the window around a candidate, in sides of its box
WINDOW_PIXELS = 512  # longest side of the window that the parser looks at
CROP_SIDES = (1.0, 4.5)  # of a face's crop in sides of its box; others are not faces
MIN_SKIN = 0.1  # of the crop
MIN_AGREEMENT = 0.8  # of the label maps of a crop and its mirror image; faces have 0.97 and more
MAX_ROTATION = 25  # degrees between the detector's tilt and the parser's; unrelated if it is not a face
MIN_PARSED_SIDE = 512  # minimum side of the parsed crop in pixels


@dataclass(frozen=True)
class Face:
    """A face in a photo.

    Attributes:
        crop: CelebA-HQ's crop around it, in pixels of the photo.
        score: the detector's, higher is more certain; 0 where only the parser found it.
    """

    crop: Crop
    score: float = 0.0

    @property
    def side(self) -> float:
        """The crop's side in pixels of the photo."""
        return 2 * abs(self.crop.axis)

    @property
    def tilt(self) -> float:
        """Degrees counter-clockwise by which the face is turned in the image plane."""
        return -math.degrees(math.atan2(self.crop.axis.imag, self.crop.axis.real))


def find_faces(photo: Image.Image, parser: FaceParser, smallest: float | None = None) -> list[Face]:
    """Return the faces in an upright RGB photo, largest first.

    Args:
        photo: the photo.
        parser: confirms each candidate: it must find two eyes and a mouth where the crop expects them.
        smallest: see `find_candidates`.

    Raises:
        DetectionError: dlib is not installed.
    """
    found: list[Face] = []
    for candidate in find_candidates(photo, smallest)[:MAX_FACES]:
        crop = _confirmed(photo, candidate, parser)
        if crop is not None and not any(_same(crop, other.crop) for other in found):
            found.append(Face(crop, candidate.score))
    if not found:  # a face that fills the photo, or one that the detector does not know
        crop = _in_whole_photo(photo, parser)
        found = [] if crop is None else [Face(crop)]
    return sorted(found, key=lambda face: -face.side)


def cut_face(photo: Image.Image, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Return a crop of an RGB photo, (3, *size) in [-1, 1], looking at the pixels around it alone."""
    reach = math.sqrt(2) * abs(crop.axis) + 2
    pixels, inner, _ = _window(photo, crop, reach, math.ceil(4 * max(size)))
    return inner.cut(pixels, size)


def align(photo: Image.Image, parser: FaceParser, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the largest face in an upright RGB photo, cropped as CelebA-HQ does, and its label map.

    The parser looks at a crop of at least MIN_PARSED_SIDE pixels, whatever `size` is.

    Args:
        photo: the photo.
        parser: finds the regions.
        size: (H, W) of the result.

    Returns:
        The crop (3, H, W) in [-1, 1], rounded to 8 bits, and labels (H, W), uint8.

    Raises:
        AlignmentError: no face was found. DetectionError: dlib is not installed.
    """
    faces = find_faces(photo, parser)
    if not faces:
        raise AlignmentError(
            "no face was found in the photo; take one that shows both eyes and the mouth, larger or from the front"
        )
    image = quantize_8bit(cut_face(photo, faces[0].crop, size))
    scale = max(1, math.ceil(MIN_PARSED_SIDE / min(size)))
    fine = parser.parse(cut_face(photo, faces[0].crop, (scale * size[0], scale * size[1])))
    labels = F.interpolate(fine[None, None], size=size, mode="nearest-exact")[0, 0]
    return image, labels


def _confirmed(photo: Image.Image, candidate: Candidate, parser: FaceParser) -> Crop | None:
    """Return the crop of the face in a candidate's box, None if the parser finds none."""
    turn = math.radians(-candidate.tilt)  # y points down
    first = Crop(candidate.center, candidate.side * complex(math.cos(turn), math.sin(turn)))
    pixels, inner, scale = _window(photo, first, WINDOW * candidate.side, WINDOW_PIXELS)
    crop = settle(pixels, inner, parser)
    if crop is None or not _looks_like_a_face(pixels, crop, parser):
        return None
    left, top = _corner(photo, first, WINDOW * candidate.side)
    crop = Crop(crop.center / scale + complex(left, top), crop.axis / scale)
    side = 2 * abs(crop.axis)
    turn = (Face(crop).tilt - candidate.tilt + 180) % 360 - 180
    fits = CROP_SIDES[0] <= side / candidate.side <= CROP_SIDES[1] and abs(turn) <= MAX_ROTATION
    return crop if fits and overlap(crop.center, side, candidate.center, candidate.side) else None


def _in_whole_photo(photo: Image.Image, parser: FaceParser) -> Crop | None:
    scale = min(1.0, 2 * WINDOW_PIXELS / max(photo.size))
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    pixels = to_tensor(photo.resize(size, Image.Resampling.BICUBIC))
    for first in whole_photo_crops(*size):
        crop = settle(pixels, first, parser)
        if crop is not None and _looks_like_a_face(pixels, crop, parser):
            return Crop(crop.center / scale, crop.axis / scale)
    return None


def mirror_agreement(image: Tensor, labels: Tensor, parser: FaceParser) -> float:
    """Return the fraction of pixels on which the label maps of an image and of its mirror image agree.

    Args:
        image: (3, H, W) in [-1, 1].
        labels: (H, W), the parser's label map of it.
        parser: makes the label map of the mirror image.
    """
    return float((parser.label_set.flip(parser.parse(image.flip(-1))) == labels).float().mean())


def _looks_like_a_face(pixels: Tensor, crop: Crop, parser: FaceParser) -> bool:
    image = crop.cut(pixels, parser.size)
    labels = parser.parse(image)
    names = [name for name in ("skin", "nose") if name in parser.label_set.regions]
    numbers = torch.tensor(parser.label_set.indices(names), dtype=labels.dtype, device=labels.device)
    if float(torch.isin(labels, numbers).float().mean()) < MIN_SKIN:
        return False
    return mirror_agreement(image, labels, parser) >= MIN_AGREEMENT


def _same(crop: Crop, other: Crop) -> bool:
    return abs(crop.center - other.center) < 0.5 * max(abs(crop.axis), abs(other.axis))


def _corner(photo: Image.Image, crop: Crop, reach: float) -> tuple[int, int]:
    left = min(max(0, math.floor(crop.center.real - reach)), photo.width - 1)
    return left, min(max(0, math.floor(crop.center.imag - reach)), photo.height - 1)


def _window(photo: Image.Image, crop: Crop, reach: float, longest: int) -> tuple[Tensor, Crop, float]:
    """Return the pixels up to `reach` from a crop's center, the crop within them, and their scale."""
    left, top = _corner(photo, crop, reach)
    right = max(left + 1, min(photo.width, math.ceil(crop.center.real + reach)))
    bottom = max(top + 1, min(photo.height, math.ceil(crop.center.imag + reach)))
    scale = min(1.0, longest / max(right - left, bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    pixels = photo.crop((left, top, right, bottom))
    if size != pixels.size:
        pixels = pixels.resize(size, Image.Resampling.BICUBIC)
    inner = Crop((crop.center - complex(left, top)) * scale, crop.axis * scale)
    return to_tensor(pixels), inner, scale
