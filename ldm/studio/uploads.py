"""What visitors send: checked before it is decoded, upright, and nothing kept but pixels."""

from typing import Any

from torch import Tensor

from ldm.data.datasets.paired_images import check_same_aspect
from ldm.data.faces import Face
from ldm.data.images import ImageError, open_image, read_labels, read_rgb, to_tensor, upright_size
from ldm.data.labels import LabelSet
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import align

PHOTOS, MASKS = ("JPEG", "PNG", "WEBP"), ("PNG",)
MAX_BYTES = 20_000_000
OWN = "your photo"


def checked(data: Any, what: str) -> bytes:
    """Return the bytes of an upload; ImageError where there are none, or too many."""
    if not isinstance(data, bytes) or not data:
        raise ImageError(f"{what} is empty; choose a file first")
    if len(data) > MAX_BYTES:
        raise ImageError(
            f"{what} has {len(data) / 1e6:.0f} MB; at most {MAX_BYTES // 1_000_000} are taken. Make it smaller first"
        )
    return data


def aligned_face(photo: bytes, parser: FaceParser, size: tuple[int, int]) -> Face:
    """Return the face in a photo, cropped upright, with the mask that the parser finds.

    Raises:
        ImageError: no picture of a kind that is taken. AlignmentError: no face in it.
    """
    with open_image(checked(photo, "the photo"), PHOTOS, "the photo") as opened:
        image = read_rgb(opened)
    return Face(OWN, *align(image, parser, size))


def masked_face(photo: bytes, mask: bytes, label_set: LabelSet, size: tuple[int, int]) -> Face:
    """Return a photo with the mask that came with it, both squeezed to `size`.

    Raises:
        ImageError: one of them cannot be used, or their shapes differ.
    """
    with open_image(checked(photo, "the photo"), PHOTOS, "the photo") as opened:
        shape = upright_size(opened)
        image = to_tensor(read_rgb(opened, size))
    labels, mask_shape = _labels(mask, label_set, size)
    check_same_aspect("the photo", "the mask", shape, mask_shape)
    return Face(OWN, image, labels)


def read_mask(mask: bytes, label_set: LabelSet, size: tuple[int, int]) -> Tensor:
    """Return a mask (H, W) that came as a file, resized; ImageError where it is none."""
    return _labels(mask, label_set, size)[0]


def _labels(mask: bytes, label_set: LabelSet, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    with open_image(checked(mask, "the mask"), MASKS, "the mask") as opened:
        return read_labels(opened, label_set, size), (opened.height, opened.width)
