"""ADE20K scene parsing (CVPR 2017, the challenge's 150 classes): photos of many sizes with label maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ldm.data.datasets.folders import PHOTO_SUFFIXES, files_by_name, pair_by_name
from ldm.data.datasets.paired_images import PairedImages, wanted_keys
from ldm.data.images import Size, label_table
from ldm.data.labels import ADE20K as REGIONS

SPLITS = {"train": "training", "training": "training", "val": "validation", "validation": "validation"}


class ADE20K(PairedImages):
    """Scenes in the layout of the official download ADEChallengeData2016.

        images/training/ADE_train_00000001.jpg       images/validation/...
        annotations/training/ADE_train_00000001.png  annotations/validation/...

    The files number the classes 1..150 and write 0 for anything else. As in SPADE, class k becomes region
    k - 1 and "anything else" the last one, 150: R = 151. Items as in `PairedImages`.

    Args:
        size: Size of the items, an int or [H, W]; photos of other shapes are squeezed.
        path: The folder that holds images/ and annotations/.
        keys: Which of "image" and "labels" to load; None loads both.
        split: "train" or "validation".
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
            raise ValueError(f"split is {split!r}; ADE20K has train and validation")
        images = (
            files_by_name(root / "images" / SPLITS[split], PHOTO_SUFFIXES) if "image" in entries else None
        )
        labels = (
            files_by_name(root / "annotations" / SPLITS[split], (".png",)) if "labels" in entries else None
        )
        super().__init__(
            pair_by_name(images, labels), REGIONS, size, entries, horizontal_flip, seed, _file_table()
        )


def _file_table() -> np.ndarray:
    """0 -> 150, k -> k - 1; numbers above 150 stay forbidden, 255 unlabelled."""
    table = label_table(REGIONS)
    table[: len(REGIONS)] = np.roll(np.arange(len(REGIONS)), 1)
    return table
