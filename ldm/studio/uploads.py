"""Uploads: checked before decoding, rotated upright, reduced to pixels."""

from typing import Any

from torch import Tensor

from ldm.data.datasets.paired_images import check_same_aspect
from ldm.data.faces import Face
from ldm.data.images import ImageError, open_image, read_rgb, to_tensor, upright_size
from ldm.data.label_maps import read_labels
from ldm.data.labels import LabelSet
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import align
from ldm.studio.server.upload_folder import MAX_BYTES

PHOTOS, MASKS = ("JPEG", "PNG", "WEBP"), ("PNG",)
OWN = "your photo"


def checked(data: Any, what: str) -> bytes:
    """Return the bytes of an upload; raise ImageError if it is empty or too large."""
    if not isinstance(data, bytes) or not data:
        raise ImageError(f"{what} is empty; choose a file first")
    if len(data) > MAX_BYTES:
        raise ImageError(
            f"{what} must have at most {MAX_BYTES // 1_000_000} MB, got {len(data) / 1e6:.0f}; resize it first"
        )
    return data


def aligned_face(photo: bytes, parser: FaceParser, size: tuple[int, int]) -> Face:
    """Return the aligned face of a photo with the mask from the parser.

    Raises:
        ImageError: not an image of a supported format. AlignmentError: no face found.
    """
    with open_image(checked(photo, "the photo"), PHOTOS, "the photo") as opened:
        image = read_rgb(opened)
    return Face(OWN, *align(image, parser, size))


def masked_face(photo: bytes, mask: bytes, label_set: LabelSet, size: tuple[int, int]) -> Face:
    """Return a photo with its uploaded mask, both resized to `size`.

    Raises:
        ImageError: an unusable file, or different aspect ratios.
    """
    with open_image(checked(photo, "the photo"), PHOTOS, "the photo") as opened:
        shape = upright_size(opened)
        image = to_tensor(read_rgb(opened, size))
    labels, mask_shape = _labels(mask, label_set, size)
    check_same_aspect("the photo", "the label map", shape, mask_shape)
    return Face(OWN, image, labels)


def read_mask(mask: bytes, label_set: LabelSet, size: tuple[int, int]) -> Tensor:
    """Return an uploaded mask (H, W), resized; raise ImageError if it is invalid."""
    return _labels(mask, label_set, size)[0]


def _labels(mask: bytes, label_set: LabelSet, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    with open_image(checked(mask, "the label map"), MASKS, "the label map") as opened:
        return read_labels(opened, label_set, size), (opened.height, opened.width)
