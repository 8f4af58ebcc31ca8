"""CelebAMask-HQ (arXiv 1907.11922): 30,000 faces with label maps of 19 regions."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ldm.data.datasets.folders import (
    PHOTO_SUFFIXES,
    FolderError,
    Pair,
    choose,
    files_by_name,
    pair_by_name,
    read_names,
)
from ldm.data.datasets.paired_images import PairedImages, wanted_keys
from ldm.data.images import ImageError, Size, label_table, open_image
from ldm.data.labels import CELEBAMASK_HQ, UNLABELLED
from ldm.data.png_checksums import verify_png

BLACK, WHITE = 64, 192  # of a part's image: below is outside, from there on inside, between is neither


class CelebAMaskHQ(PairedImages):
    """Faces as images/N.jpg (or .jpeg, .png) and labels/N.png, the layout that `prepare_celebamask.py` makes.

    Items as in `PairedImages`; label maps may be smaller than the pictures, as the dataset's are.

    Args:
        size: Size of the items, an int or [H, W].
        path: The folder that holds images/ and labels/.
        keys: Which of "image" and "labels" to load; None loads both. The other folder need not exist.
        first: The lowest number N to take; None begins with the first.
        last: The highest number N to take, itself included; None ends with the last.
        ids: A text file with one name N a line: takes these, in this order.
        horizontal_flip: Flip with probability 1/2, left and right labels swapped.
        seed: Seed of the flips.
        ignored_regions: Regions whose pixels become unlabelled: of predicted label maps, those that are often wrong.
        repair_sides: Exchange left and right regions where a label map has them on the wrong sides, which 6 % of the
            dataset's do.

    Raises:
        FolderError: a folder or file is missing, or has no partner.
        ImageError: the header of any file, or one of 64 pairs that are decoded, cannot be used.
        ValueError: `first`, `last`, `ids`, `keys` or `size` make no sense.
    """

    def __init__(
        self,
        size: Size,
        path: str,
        keys: Sequence[str] | None = None,
        first: int | None = None,
        last: int | None = None,
        ids: str | None = None,
        horizontal_flip: bool = False,
        seed: int = 0,
        ignored_regions: Sequence[str] = (),
        repair_sides: bool = False,
    ) -> None:
        self.repairs_sides = repair_sides
        root = Path(path).expanduser()
        entries = wanted_keys(keys)
        if ids is not None and (first is not None or last is not None):
            raise ValueError("`ids` and `first`/`last` both choose the pictures; give one of them")
        _check_root(root)
        images = files_by_name(root / "images", PHOTO_SUFFIXES) if "image" in entries else None
        labels = files_by_name(root / "labels", (".png",)) if "labels" in entries else None
        if ids is not None:
            names = read_names(Path(ids).expanduser())
            images, labels = (files and choose(files, names, ids) for files in (images, labels))
        else:
            _warn_if_beyond(images or labels or {}, first, last, root)
            images, labels = (files and _numbered(files, first, last) for files in (images, labels))
        table = None
        if ignored_regions:
            table = label_table(CELEBAMASK_HQ)
            table[CELEBAMASK_HQ.indices(ignored_regions)] = UNLABELLED
        pairs = pair_by_name(images, labels)
        super().__init__(pairs, CELEBAMASK_HQ, size, entries, horizontal_flip, seed, table)

    def _load(self, pair: Pair) -> dict[str, Tensor]:
        item = super()._load(pair)
        if self.repairs_sides and "labels" in item:
            item["labels"] = self.label_set.repair_sides(item["labels"])
        return item


def merge_parts(folder: Path, number: int) -> np.ndarray:
    """Draw the parts of one face over each other in the dataset's order: uint8 labels (H, W), 0..18.

    Args:
        folder: The folder of the download that holds NNNNN_part.png, black and white.
        number: The face.

    Raises:
        ImageError: there is no part at all, one is damaged, or two differ in size.
    """
    labels = None
    for label, region in enumerate(CELEBAMASK_HQ.regions[1:], start=1):
        path = folder / f"{number:05d}_{region}.png"
        if not path.is_file():
            continue  # a face without glasses has no file for glasses
        with open_image(path) as part:
            inside = _inside(part, path)
        if labels is None:
            labels = np.zeros(inside.shape, np.uint8)
        if labels.shape != inside.shape:
            raise ImageError(
                f"{path} differs in size from the other parts of that face; unpack the download again"
            )
        labels[inside] = label
    if labels is None:
        raise ImageError(f"{folder} has no {number:05d}_skin.png nor another part; unpack the download again")
    return labels


def _inside(part: Image.Image, path: Path) -> np.ndarray:
    """Return which pixels (H, W) belong to a part: white ones; black or transparent ones do not.

    Raises:
        ImageError: it is neither black nor white.
    """
    verify_png(part)
    rgba = part.convert("RGBA")
    grey = np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("L"))
    between = (grey >= BLACK) & (grey < WHITE)
    if between.any() or (grey.any() and grey.max() < WHITE):
        raise ImageError(
            f"{path} has the grey value {grey[between].flat[0] if between.any() else grey.max()}, expected black (0) "
            "and white (255) alone; unpack the download again"
        )
    return grey >= WHITE


def _check_root(root: Path) -> None:
    """Raise where `path` is the folder above the right one, as after `prepare_celebamask.py`."""
    inside = [name for name in ("train", "test") if (root / name / "images").is_dir()]
    if inside and not (root / "images").is_dir():
        raise FolderError(
            f"{root} has no images/ but {' and '.join(inside)}; did you mean path: {root / inside[0]}?"
        )


def _numbered(files: Mapping[str, Path], first: int | None, last: int | None) -> dict[str, Path]:
    """Return the files numbered first..last.

    Raises:
        FolderError: there are none.
    """
    if first is None and last is None:
        return dict(files)
    numbers = _numbers(files)
    low, high = (
        first if first is not None else min(numbers.values()),
        last if last is not None else max(numbers.values()),
    )
    found = {name: files[name] for name, number in numbers.items() if low <= number <= high}
    if not found:
        folder = next(iter(files.values())).parent
        have = f"{min(numbers.values())}..{max(numbers.values())}"
        raise FolderError(f"{folder} has no file numbered {low}..{high}, only {have}; change first and last")
    return found


def _numbers(files: Mapping[str, Path]) -> dict[str, int]:
    for name, path in files.items():
        if not name.isdecimal():
            raise FolderError(
                f"first and last choose by number, but {path} has none for a name; list the names with `ids`"
            )
    return {name: int(name) for name in files}


def _warn_if_beyond(files: Mapping[str, Path], first: int | None, last: int | None, root: Path) -> None:
    """Warn about a limit that lies outside the files there are: perhaps some were not copied."""
    if first is None and last is None:
        return
    numbers = _numbers(files).values()
    for limit, name in ((first, "first"), (last, "last")):
        if limit is not None and not min(numbers) <= limit <= max(numbers):
            warnings.warn(
                f"{name}: {limit}, but the files in {root} are numbered {min(numbers)}..{max(numbers)}",
                stacklevel=3,
            )
