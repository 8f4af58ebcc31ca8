"""Cityscapes (arXiv 1604.01685): street scenes of 2048 x 1024 pixels with label maps."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ldm.data.datasets.split_dataset import Files, SplitDataset
from ldm.data.images import Size
from ldm.data.labels import CITYSCAPES, CITYSCAPES_TRAIN, UNLABELED, LabelSet


class Cityscapes(SplitDataset):
    """Street scenes in the layout of the official downloads leftImg8bit and gtFine.

        leftImg8bit/SPLIT/CITY/CITY_000000_000019_leftImg8bit.png
        gtFine/SPLIT/CITY/CITY_000000_000019_gtFine_labelIds.png

    By default the R = 35 regions of SPADE: the label ids 0..33, and 34 for all other values, such as the id
    -1 "license plate". The usual size is [256, 512]. Other arguments as in `SplitDataset`.

    Args:
        split: "train", "val" (or "validation") or "test"; the official test labels are blank.
        train_ids: Use the 19 classes of the benchmark; all other pixels are unlabeled (255).
    """

    splits: ClassVar = {"train": "train", "val": "val", "test": "test", "validation": "val"}
    image_files = Files("leftImg8bit/{split}", (".png",), "_leftImg8bit", recursive=True)
    label_files = Files("gtFine/{split}", (".png",), "_gtFine_labelIds", recursive=True)

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
        self.train_ids = train_ids
        super().__init__(size, path, keys, split, horizontal_flip, seed)

    def _label_encoding(self) -> tuple[LabelSet, np.ndarray]:
        return (CITYSCAPES_TRAIN, _train_table()) if self.train_ids else (CITYSCAPES, _label_table())


def _label_table() -> np.ndarray:
    """Label ids are the labels; all values above them become the last region."""
    return np.minimum(np.arange(UNLABELED + 1), len(CITYSCAPES) - 1).astype(np.int16)


def _train_table() -> np.ndarray:
    """Label id -> train id, by class name; ids that the benchmark ignores are unlabeled."""
    table = np.full(UNLABELED + 1, UNLABELED, np.int16)
    for number, name in enumerate(CITYSCAPES_TRAIN.regions):
        table[CITYSCAPES.index(name)] = number
    return table
