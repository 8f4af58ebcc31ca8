"""Base class of datasets in the layout of an official download with splits: Cityscapes, ADE20K, DeepFashion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ldm.data.datasets.folders import PHOTO_SUFFIXES, Pair, files_by_name, pair_by_name
from ldm.data.datasets.paired_images import PairedImages, sample_entries
from ldm.data.images import Size
from ldm.data.labels import LabelSet


@dataclass(frozen=True)
class Files:
    """Where a dataset keeps its images or its label maps.

    Attributes:
        folder: folder below the root; "{split}" stands for the folder of the split.
        suffixes: file suffixes in lower case.
        ending: end of the file names before the suffix, not part of the item's name.
        recursive: whether the files are in subfolders.
    """

    folder: str
    suffixes: tuple[str, ...] = PHOTO_SUFFIXES
    ending: str = ""
    recursive: bool = False

    def find(self, root: Path, split: str) -> dict[str, Path]:
        """Return name -> file, see `files_by_name`."""
        folder = root / self.folder.format(split=split)
        return files_by_name(folder, self.suffixes, self.ending, self.recursive)


class SplitDataset(PairedImages):
    """Images with label maps in the layout of an official download. Items as in `PairedImages`.

    Args:
        size: Size of the items, an int or [H, W]; resizing does not preserve the aspect ratio.
        path: Root folder.
        keys: Which of "image" and "labels" to load; None loads both.
        split: A key of `splits`.
        horizontal_flip: Flip with probability 1/2.
        seed: Seed of the flips.

    Attributes:
        splits: name of a split -> its folder.
        image_files, label_files: the files.

    Raises:
        FolderError, ImageError: as `PairedImages`.
        ValueError: unknown split or key, or invalid size.
    """

    splits: ClassVar[Mapping[str, str]]
    image_files: ClassVar[Files]
    label_files: ClassVar[Files]

    def __init__(
        self,
        size: Size,
        path: str,
        keys: Sequence[str] | None = None,
        split: str = "train",
        horizontal_flip: bool = False,
        seed: int = 0,
    ) -> None:
        entries = sample_entries(keys)
        if split not in self.splits:
            raise ValueError(
                f"split must be one of {', '.join(self.splits)} for {type(self).__name__}, got {split!r}"
            )
        label_set, table = self._label_encoding()
        pairs = self._find_pairs(Path(path).expanduser(), entries, split)
        super().__init__(pairs, label_set, size, entries, horizontal_flip, seed, table)

    def _label_encoding(self) -> tuple[LabelSet, np.ndarray | None]:
        """Return the label set, and the label table of the files; None if their values are the labels."""
        raise NotImplementedError

    def _find_pairs(self, root: Path, entries: Sequence[str], split: str) -> list[Pair]:
        folder = self.splits[split]
        images = self.image_files.find(root, folder) if "image" in entries else None
        labels = self.label_files.find(root, folder) if "labels" in entries else None
        return pair_by_name(images, labels)
