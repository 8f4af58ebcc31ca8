"""Cityscapes (arXiv 1604.01685): street scenes of 2048 x 1024 pixels with label maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ldm.data.datasets.folders import files_by_name, pair_by_name
from ldm.data.datasets.paired_images import PairedImages, wanted_keys
from ldm.data.images import Size
from ldm.data.labels import CITYSCAPES, CITYSCAPES_TRAIN, UNLABELLED

SPLITS = ("train", "val", "test")


class Cityscapes(PairedImages):
    """Street scenes in the layout of the official downloads leftImg8bit and gtFine.

        leftImg8bit/SPLIT/CITY/CITY_000000_000019_leftImg8bit.png
        gtFine/SPLIT/CITY/CITY_000000_000019_gtFine_labelIds.png

    By default the R = 35 regions of SPADE: the label ids 0..33, and 34 for every other number (id -1, "license
    plate", is among them). `train_ids` takes the 19 classes of the benchmark instead; all other pixels are
    unlabelled (255).
    Items as in `PairedImages`.

    Args:
        size: Size of the items, an int or [H, W]; usual is [256, 512].
        path: The folder that holds leftImg8bit/ and gtFine/.
        keys: Which of "image" and "labels" to load; None loads both.
        split: "train", "val" (or "validation") or "test"; the official test labels are blank.
        train_ids: Use the 19 classes of the benchmark.
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
        train_ids: bool = False,
        horizontal_flip: bool = False,
        seed: int = 0,
    ) -> None:
        root = Path(path).expanduser()
        entries = wanted_keys(keys)
        folder = {"validation": "val"}.get(split, split)
        if folder not in SPLITS:
            raise ValueError(f"split is {split!r}; Cityscapes has {', '.join(SPLITS)}")
        images = labels = None
        if "image" in entries:
            images = files_by_name(root / "leftImg8bit" / folder, (".png",), "_leftImg8bit", recursive=True)
        if "labels" in entries:
            labels = files_by_name(root / "gtFine" / folder, (".png",), "_gtFine_labelIds", recursive=True)
        label_set = CITYSCAPES_TRAIN if train_ids else CITYSCAPES
        table = _train_table() if train_ids else _label_table()
        super().__init__(pair_by_name(images, labels), label_set, size, entries, horizontal_flip, seed, table)


def _label_table() -> np.ndarray:
    """Label ids stay, everything beyond them is the last region."""
    return np.minimum(np.arange(UNLABELLED + 1), len(CITYSCAPES) - 1).astype(np.int16)


def _train_table() -> np.ndarray:
    """Label id -> train id, by the classes' names; ids that the benchmark ignores are unlabelled."""
    table = np.full(UNLABELLED + 1, UNLABELLED, np.int16)
    for number, name in enumerate(CITYSCAPES_TRAIN.regions):
        table[CITYSCAPES.index(name)] = number
    return table
