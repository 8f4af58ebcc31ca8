"""Label maps in colour: recover labels from the colours of a label set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm.data.labels import UNLABELLED, LabelSet

SCALED = {
    "L;2": 85,
    "L;4": 17,
}  # scale of 2- and 4-bit grey in Pillow, by decoder name
LISTED = 5  # colours in a message


def unscaled(mask: Image.Image) -> int:
    """Return the scale of the values of an opened, not yet decoded grey image; 1 for 8 bits."""
    tiles: Any = getattr(mask, "tile", None)
    arguments = tiles[0][3] if tiles else None
    mode = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return SCALED.get(mode, 1) if mask.mode == "L" else 1


def labels_by_colour(mask: Image.Image, label_set: LabelSet) -> np.ndarray | None:
    """Return the labels uint8 (H, W) of an image in the label set's colours; None if its values are the labels.

    Args:
        mask: decoded, in mode P, RGB or RGBA.
        label_set: provides the palette; a colour of two regions means the first.

    Raises:
        ValueError: colours that are not in the palette of the label set.
    """
    known: dict[tuple[int, ...], int] = {
        colour: label for label, colour in reversed(list(enumerate(label_set.palette)))
    }
    if mask.mode == "P":
        return _of_palette(mask, label_set, known)
    pixels = np.asarray(mask.convert("RGB")).astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    codes, where = np.unique(packed, return_inverse=True)
    colours = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]
    foreign = [colour for colour in colours if colour not in known]
    if foreign:
        raise ValueError(_foreign(foreign, len(colours), label_set))
    return np.array([known[colour] for colour in colours], np.uint8)[where].reshape(packed.shape)


def _of_palette(
    mask: Image.Image, label_set: LabelSet, known: dict[tuple[int, ...], int]
) -> np.ndarray | None:
    flat = mask.getpalette("RGB") or []
    palette = [tuple(flat[start : start + 3]) for start in range(0, len(flat) - 2, 3)]
    used = [int(index) for index in np.flatnonzero(mask.histogram())]
    colours = {index: palette[index] for index in used if index < len(palette)}
    regions = {index: colour for index, colour in colours.items() if index != UNLABELLED}
    if all(
        index < len(label_set) and colour == label_set.palette[index] for index, colour in regions.items()
    ):
        return None
    greys = {index: colour[0] for index, colour in regions.items() if len(set(colour)) == 1}
    if len(greys) == len(regions) and any(index != grey for index, grey in greys.items()):
        return _of_grey_palette(mask, label_set, greys)
    of_set = [index for index, colour in regions.items() if colour in known]
    if len(of_set) <= 1:  # another palette, with no or one accidental match: the values are the labels
        return None
    foreign = [colour for index, colour in regions.items() if colour not in known]
    if foreign:
        raise ValueError(_foreign(foreign, len(regions), label_set))
    table = np.full(UNLABELLED + 1, UNLABELLED, np.uint8)
    for index, colour in regions.items():
        table[index] = known[colour]
    return table[np.asarray(mask)]


def _of_grey_palette(mask: Image.Image, label_set: LabelSet, greys: dict[int, int]) -> np.ndarray | None:
    """Return the grey levels of a grey palette as labels, if only they are valid labels."""

    def possible(numbers: list[int]) -> bool:
        return all(number < len(label_set) or number == UNLABELLED for number in numbers)

    if not possible(list(greys.values())):
        return None
    if possible(list(greys)):
        raise ValueError(
            f"its palette is grey, and both its indices {sorted(greys)[:LISTED]} and its grey levels "
            f"{sorted(greys.values())[:LISTED]} are valid labels; save it as a grey image without palette"
        )
    table = np.full(UNLABELLED + 1, UNLABELLED, np.uint8)
    for index, grey in greys.items():
        table[index] = grey
    return table[np.asarray(mask)]


def _foreign(foreign: Sequence[tuple[int, ...]], count: int, label_set: LabelSet) -> str:
    shown = ", ".join(map(str, foreign[:LISTED])) + (" ..." if len(foreign) > LISTED else "")
    return (
        f"{len(foreign)} of its {count} colours are not of {label_set.name}'s palette: {shown}; expected one "
        f"label per pixel, 0..{len(label_set) - 1}, in a grey or palette PNG, or exactly the colours of the palette "
        "(ldm.data.labels), without smoothing or compression"
    )
