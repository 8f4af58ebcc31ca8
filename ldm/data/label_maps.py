"""Label maps: PNG files <-> uint8 tensors of region indices; errors name the file and the fix."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm.data.images import GRAY_16_BIT, ImageError, Size, as_size, open_image, save_png
from ldm.data.label_colors import labels_by_color, unscaled
from ldm.data.labels import UNLABELED, LabelSet
from ldm.data.png_checksums import verify_png

_FORBIDDEN = -1  # in a label table: no such label


def load_labels(
    path: str | Path, label_set: LabelSet, size: Size | None = None, table: np.ndarray | None = None
) -> Tensor:
    """Read a label map: uint8 (H, W) with 0..R-1, or 255 for unlabeled.

    Args:
        path: A gray or palette PNG whose values are the labels.
        label_set: Label set of the file.
        size: Output size, an int or [H, W]; nearest neighbor. None keeps the file's size.
        table: Maps file values to labels, see `label_table`; by default the values are the labels.

    Raises:
        ImageError: as in `load_image`, a color image, or a label out of range.
    """
    size = None if size is None else as_size(size)
    with open_image(path) as mask:
        return read_labels(mask, label_set, size, table)


def read_labels(
    mask: Image.Image, label_set: LabelSet, size: Size | None = None, table: np.ndarray | None = None
) -> Tensor:
    """Decode an opened label map; arguments, result and errors as in `load_labels`."""
    check_label_format(mask, label_set)
    path = getattr(mask, "filename", "the label map")
    meanings = label_table(label_set) if table is None else table
    verify_png(mask)
    factor = unscaled(mask)
    if mask.mode in GRAY_16_BIT:
        mask = _narrow(mask, path, label_set)
    elif mask.mode != "L" and table is None:
        mask = _by_color(mask, path, label_set)
    elif mask.mode not in ("L", "P"):
        raise ImageError(f"{path} is saved in color; this dataset stores its labels as gray PNGs")
    if factor > 1:
        mask = Image.fromarray(np.asarray(mask) // factor)
    _check_values(np.flatnonzero(mask.histogram()), meanings, path, label_set)
    if size is not None and (mask.height, mask.width) != as_size(size):
        mask = mask.resize(as_size(size)[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(meanings.astype(np.uint8)[np.asarray(mask)])


def check_label_format(mask: Image.Image, label_set: LabelSet) -> None:
    """Raise ImageError if an opened file cannot be a label map, from its header only."""
    path = getattr(mask, "filename", "the label map")
    if mask.mode not in ("L", "P", "RGB", "RGBA", *GRAY_16_BIT):
        raise ImageError(
            f"{path} has mode {mask.mode}, expected one label in [0, {len(label_set) - 1}] per pixel "
            f"({label_set.name}), in a gray or palette PNG; converting the mode may change the labels"
        )
    if mask.format == "JPEG":
        raise ImageError(f"{path} is a JPEG, whose compression changes the labels; save label maps as PNG")


def label_table(label_set: LabelSet) -> np.ndarray:
    """Return the int16 (256,) table for files whose values are the labels: 0..R-1 and 255; -1 for others.

    Datasets with other file values use their own table: value -> label, -1 for invalid values.
    """
    table = np.full(UNLABELED + 1, _FORBIDDEN, np.int16)
    table[: len(label_set)] = np.arange(len(label_set))
    table[UNLABELED] = UNLABELED
    return table


def save_labels(path: str | Path, labels: np.ndarray | Tensor, label_set: LabelSet) -> None:
    """Write a label map uint8 (H, W) as a palette PNG in the colors of the label set."""
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    pil_image = Image.fromarray(array.astype(np.uint8, casting="same_kind"), "L")
    colors = [value for color in label_set.palette for value in color]
    pil_image.putpalette(colors + [0] * (3 * (UNLABELED + 1) - len(colors)))
    save_png(path, pil_image)


def _narrow(mask: Image.Image, path: str, label_set: LabelSet) -> Image.Image:
    """Convert a 16-bit label map to 8 bits; raise ImageError for values above 255."""
    numbers = np.asarray(mask)
    invalid = numbers[(numbers < 0) | (numbers > UNLABELED)]
    if invalid.size:
        raise ImageError(
            f"label {invalid.flat[0]} in {path}; {label_set.name} has labels in [0, {len(label_set) - 1}]. "
            "Is it a label map with 16 bits per pixel of another dataset?"
        )
    return Image.fromarray(numbers.astype(np.uint8))


def _by_color(mask: Image.Image, path: str, label_set: LabelSet) -> Image.Image:
    """Convert a color or palette image to label values."""
    mask.load()
    if mask.mode == "RGBA" and mask.getchannel("A").getextrema() != (255, 255):
        raise ImageError(f"{path} has transparent pixels; expected one label per pixel, without transparency")
    try:
        labels = labels_by_color(mask, label_set)
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error
    return mask if labels is None else Image.fromarray(labels)


def _check_values(found: np.ndarray, table: np.ndarray, path: str, label_set: LabelSet) -> None:
    """Raise ImageError for values that the table forbids; `found` are the sorted values of the file."""
    known = np.flatnonzero(table[:UNLABELED] != _FORBIDDEN)
    has = f"{label_set.name} has labels in [{known[0]}, {known[-1]}]"
    wrong = found[table[found] == _FORBIDDEN]
    if wrong.size:
        raise ImageError(f"label {wrong[0]} in {path}; {has}. Was the mask saved in color?")
    if found.tolist() == [0, UNLABELED]:
        raise ImageError(f"{path} has only the values 0 and 255; {has}. Is it a binary mask of one part?")
