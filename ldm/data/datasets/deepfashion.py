"""DeepFashion-MultiModal (arXiv 2205.15996): people, 750 x 1101 pixels, 12,701 with parsing maps."""

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ldm.data.datasets.folders import (
    PHOTO_SUFFIXES,
    FolderError,
    choose,
    files_by_name,
    pair_by_name,
    read_names,
)
from ldm.data.datasets.paired_images import PairedImages, wanted_keys
from ldm.data.images import Size
from ldm.data.labels import DEEPFASHION

SPLITS = ("train", "test", "all")
_TEST_SHARE = 10  # without lists, one item in so many is for testing


class DeepFashion(PairedImages):
    """People in the layout of the official downloads images and segm.

        images/WOMEN-Dresses-id_00000021-02_1_front.jpg
        segm/WOMEN-Dresses-id_00000021-02_1_front_segm.png

    R = 24 regions. Pictures without a parsing map are left out (the download has 44,096 pictures). If train.txt
    or test.txt lies beside the two folders, with a name a line, it is the split. The download has none; then one
    item of clothing in ten, with all its pictures, is for testing: chosen by its id, so the same on every machine.
    Items as in `PairedImages`.

    Args:
        size: Size of the items, an int or [H, W].
        path: The folder that holds images/ and segm/.
        keys: Which of "image" and "labels" to load; None loads both. segm/ must exist either way.
        split: "train", "test" or "all".
        horizontal_flip: Flip with probability 1/2.
        seed: Seed of the flips.

    Raises:
        FolderError, ImageError: as `PairedImages`.
        ValueError: an unknown split, key or size.
    """

    def __init__(
        self,
        size: Size,
        path: str,
        keys: Sequence[str] | None = None,
        split: str = "train",
        horizontal_flip: bool = False,
        seed: int = 0,
    ) -> None:
        root = Path(path).expanduser()
        entries = wanted_keys(keys)
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; DeepFashion has {', '.join(SPLITS)}")
        labels = _of_split(files_by_name(root / "segm", (".png",), "_segm"), split, root)
        images = files_by_name(root / "images", PHOTO_SUFFIXES) if "image" in entries else None
        pairs = pair_by_name(images, labels, images_may_lack_labels=True)
        super().__init__(pairs, DEEPFASHION, size, entries, horizontal_flip, seed)


def _of_split(labels: Mapping[str, Path], split: str, root: Path) -> dict[str, Path]:
    """Return the parsing maps that belong to the split.

    Raises:
        FolderError: none do.
    """
    if split == "all":
        return dict(labels)
    names = root / f"{split}.txt"
    if names.is_file():
        return choose(labels, read_names(names), str(names))
    found = {name: path for name, path in labels.items() if _is_for_testing(name) == (split == "test")}
    if not found:
        raise FolderError(
            f"none of the {len(labels)} parsing maps in {root / 'segm'} falls to {split}; write {names}"
        )
    return found


def _is_for_testing(name: str) -> bool:
    item = re.search(r"id_\d+", name)
    return zlib.crc32((item.group() if item else name).encode()) % _TEST_SHARE == 0
