"""Label maps in color: recover labels from the colors of a label set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm.data.labels import UNLABELED, LabelSet

SCALED = {
    "L;2": 85,
    "L;4": 17,
}  # scale of 2- and 4-bit gray in Pillow, by decoder name
LISTED = 5  # colors in a message


def unscaled(mask: Image.Image) -> int:
    """Return the scale of the values of an opened, not yet decoded gray image; 1 for 8 bits."""
    tiles: Any = getattr(mask, "tile", None)
    arguments = tiles[0][3] if tiles else None
    mode = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return SCALED.get(mode, 1) if mask.mode == "L" else 1


def labels_by_color(mask: Image.Image, label_set: LabelSet) -> np.ndarray | None:
    """Return the labels uint8 (H, W) of an image in the label set's colors; None if its values are the labels.

    Args:
        mask: decoded, in mode P, RGB or RGBA.
        label_set: provides the palette; a color of two regions means the first.

    Raises:
        ValueError: colors that are not in the palette of the label set.
    """
    known: dict[tuple[int, ...], int] = {
        color: label for label, color in reversed(list(enumerate(label_set.palette)))
    }
    if mask.mode == "P":
        return _of_palette(mask, label_set, known)
    pixels = np.asarray(mask.convert("RGB")).astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    codes, where = np.unique(packed, return_inverse=True)
    colors = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]
    foreign = [color for color in colors if color not in known]
    if foreign:
        raise ValueError(_foreign(foreign, len(colors), label_set))
    return np.array([known[color] for color in colors], np.uint8)[where].reshape(packed.shape)


def _of_palette(
    mask: Image.Image, label_set: LabelSet, known: dict[tuple[int, ...], int]
) -> np.ndarray | None:
    flat = mask.getpalette("RGB") or []
    palette = [tuple(flat[start : start + 3]) for start in range(0, len(flat) - 2, 3)]
    used = [int(index) for index in np.flatnonzero(mask.histogram())]
    colors = {index: palette[index] for index in used if index < len(palette)}
    regions = {index: color for index, color in colors.items() if index != UNLABELED}
    if all(index < len(label_set) and color == label_set.palette[index] for index, color in regions.items()):
        return None
    grays = {index: color[0] for index, color in regions.items() if len(set(color)) == 1}
    if len(grays) == len(regions) and any(index != gray for index, gray in grays.items()):
        return _of_gray_palette(mask, label_set, grays)
    of_set = [index for index, color in regions.items() if color in known]
    if len(of_set) <= 1:  # another palette, with no or one accidental match: the values are the labels
        return None
    foreign = [color for index, color in regions.items() if color not in known]
    if foreign:
        raise ValueError(_foreign(foreign, len(regions), label_set))
    table = np.full(UNLABELED + 1, UNLABELED, np.uint8)
    for index, color in regions.items():
        table[index] = known[color]
    return table[np.asarray(mask)]


def _of_gray_palette(mask: Image.Image, label_set: LabelSet, grays: dict[int, int]) -> np.ndarray | None:
    """Return the gray levels of a gray palette as labels, if only they are valid labels."""

    def possible(numbers: list[int]) -> bool:
        return all(number < len(label_set) or number == UNLABELED for number in numbers)

    if not possible(list(grays.values())):
        return None
    if possible(list(grays)):
        raise ValueError(
            f"its palette is gray, and both its indices {sorted(grays)[:LISTED]} and its gray levels "
            f"{sorted(grays.values())[:LISTED]} are valid labels; save it as a gray image without palette"
        )
    table = np.full(UNLABELED + 1, UNLABELED, np.uint8)
    for index, gray in grays.items():
        table[index] = gray
    return table[np.asarray(mask)]


def _foreign(foreign: Sequence[tuple[int, ...]], count: int, label_set: LabelSet) -> str:
    shown = ", ".join(map(str, foreign[:LISTED])) + (" ..." if len(foreign) > LISTED else "")
    return (
        f"{len(foreign)} of its {count} colors are not of {label_set.name}'s palette: {shown}; expected one "
        f"label in [0, {len(label_set) - 1}] per pixel in a gray or palette PNG, or exactly the colors of the palette "
        "(ldm.data.labels), without smoothing or compression"
    )
