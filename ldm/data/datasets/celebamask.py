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
    files_by_name,
    pair_by_name,
    read_names,
    select,
)
from ldm.data.datasets.paired_images import PairedImages, sample_entries
from ldm.data.images import ImageError, Size, open_image
from ldm.data.label_maps import label_table
from ldm.data.labels import CELEBAMASK_HQ, UNLABELED
from ldm.data.png_checksums import verify_png

BLACK, WHITE = (
    64,
    192,
)  # gray values of part masks: below BLACK is outside, from WHITE on inside, others are invalid


class CelebAMaskHQ(PairedImages):
    """Faces as images/N.jpg (or .jpeg, .png) and labels/N.png, the layout written by `prepare_celebamask.py`.

    Items as in `PairedImages`. Label maps may be smaller than the images, as those of the dataset are.

    Args:
        size: Size of the items, an int or [H, W].
        path: Folder with images/ and labels/.
        keys: Which of "image" and "labels" to load; None loads both. Folders that are not loaded need not
            exist.
        first: Lowest number N; None for no limit.
        last: Highest number N (inclusive); None for no limit.
        ids: Text file with one name N per line: selects these faces, in this order.
        horizontal_flip: Flip with probability 1/2; left and right regions swap labels.
        seed: Seed of the flips.
        ignored_regions: Regions whose pixels become unlabeled, such as unreliable regions of predicted label
            maps.
        repair_sides: Swap left and right regions of label maps that have them on the wrong sides (6 % of the
            dataset).

    Raises:
        FolderError: missing folder or file, or an image without label map or vice versa.
        ImageError: as in `PairedImages`.
        ValueError: invalid `ids`, `keys` or `size`.
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
        entries = sample_entries(keys)
        if ids is not None and (first is not None or last is not None):
            raise ValueError("ids cannot be combined with first or last; remove ids, or first and last")
        _check_root(root)
        images = files_by_name(root / "images", PHOTO_SUFFIXES) if "image" in entries else None
        labels = files_by_name(root / "labels", (".png",)) if "labels" in entries else None
        if ids is not None:
            names = read_names(Path(ids).expanduser())
            images, labels = (files and select(files, names, ids) for files in (images, labels))
        else:
            _warn_if_outside(images or labels or {}, first, last, root)
            images, labels = (files and _numbered(files, first, last) for files in (images, labels))
        table = None
        if ignored_regions:
            table = label_table(CELEBAMASK_HQ)
            table[CELEBAMASK_HQ.indices(ignored_regions)] = UNLABELED
        pairs = pair_by_name(images, labels)
        super().__init__(pairs, CELEBAMASK_HQ, size, entries, horizontal_flip, seed, table)

    def _load(self, pair: Pair) -> dict[str, Tensor]:
        item = super()._load(pair)
        if self.repairs_sides and "labels" in item:
            item["labels"] = self.label_set.repair_sides(item["labels"])
        return item


def merge_parts(folder: Path, number: int) -> np.ndarray:
    """Merge the part masks of a face into a label map, uint8 (H, W), 0..18; later regions overwrite earlier ones.

    Args:
        folder: Folder of the download with NNNNN_part.png, black and white.
        number: Number of the face.

    Raises:
        ImageError: no part, a damaged part, or parts of different sizes.
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
                f"{path} differs in size from the other parts of the face; unpack the download again"
            )
        labels[inside] = label
    if labels is None:
        raise ImageError(
            f"{folder} has no part of face {number} ({number:05d}_skin.png, ...); unpack the download again"
        )
    return labels


def _inside(part: Image.Image, path: Path) -> np.ndarray:
    """Return a boolean mask (H, W) of the white pixels of a part; black and transparent pixels are outside.

    Raises:
        ImageError: pixels that are neither black nor white.
    """
    verify_png(part)
    rgba = part.convert("RGBA")
    gray = np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("L"))
    between = (gray >= BLACK) & (gray < WHITE)
    if between.any() or (gray.any() and gray.max() < WHITE):
        raise ImageError(
            f"{path} has the gray value {gray[between].flat[0] if between.any() else gray.max()}, expected black (0) "
            "and white (255) only; unpack the download again"
        )
    return gray >= WHITE


def _check_root(root: Path) -> None:
    """Raise FolderError if `root` is the parent of the dataset's folder, as written by `prepare_celebamask.py`."""
    inside = [name for name in ("train", "test") if (root / name / "images").is_dir()]
    if inside and not (root / "images").is_dir():
        raise FolderError(
            f"{root} has no folder images/, but {' and '.join(inside)}; did you mean path: {root / inside[0]}?"
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
        raise FolderError(
            f"{folder} has no file numbered in [{low}, {high}], only {have}; change first or last"
        )
    return found


def _numbers(files: Mapping[str, Path]) -> dict[str, int]:
    for name, path in files.items():
        if not name.isdecimal():
            raise FolderError(
                f"first and last select by number, but the name of {path} is not a number; select by name with ids"
            )
    return {name: int(name) for name in files}


def _warn_if_outside(files: Mapping[str, Path], first: int | None, last: int | None, root: Path) -> None:
    """Warn about limits outside the range of the files; perhaps some files were not copied."""
    if first is None and last is None:
        return
    numbers = _numbers(files).values()
    for limit, name in ((first, "first"), (last, "last")):
        if limit is not None and not min(numbers) <= limit <= max(numbers):
            warnings.warn(
                f"{name} is {limit}, but the files in {root} are numbered {min(numbers)}..{max(numbers)}",
                stacklevel=3,
            )
