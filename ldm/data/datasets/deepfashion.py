"""DeepFashion-MultiModal (arXiv 2205.15996): people, 750 x 1101 pixels, 12,701 with parsing maps."""

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ldm.data.datasets.folders import FolderError, Pair, pair_by_name, read_names, select
from ldm.data.datasets.split_dataset import Files, SplitDataset
from ldm.data.labels import DEEPFASHION, LabelSet

TEST_SHARE = 10  # without lists, one in so many items of clothing is for testing


class DeepFashion(SplitDataset):
    """People in the layout of the official downloads images and segm; `split` is "train", "test" or "all".

        images/WOMEN-Dresses-id_00000021-02_1_front.jpg
        segm/WOMEN-Dresses-id_00000021-02_1_front_segm.png

    R = 24 regions. Images without a parsing map are left out (the download has 44,096 images). train.txt or
    test.txt beside the two folders, with one name per line, defines the split. The download has neither: then
    one item of clothing in ten, with all its images, is for testing, selected by a hash of its id and so the
    same everywhere. Arguments as in `SplitDataset`; segm/ is required whatever `keys` are.
    """

    splits: ClassVar = {"train": "train", "test": "test", "all": "all"}
    image_files = Files("images")
    label_files = Files("segm", (".png",), "_segm")

    def _label_encoding(self) -> tuple[LabelSet, None]:
        return DEEPFASHION, None

    def _find_pairs(self, root: Path, entries: Sequence[str], split: str) -> list[Pair]:
        labels = _of_split(self.label_files.find(root, split), split, root)
        images = self.image_files.find(root, split) if "image" in entries else None
        return pair_by_name(images, labels, images_may_lack_labels=True)


def _of_split(labels: Mapping[str, Path], split: str, root: Path) -> dict[str, Path]:
    """Return the parsing maps of a split.

    Raises:
        FolderError: there are none.
    """
    if split == "all":
        return dict(labels)
    names = root / f"{split}.txt"
    if names.is_file():
        return select(labels, read_names(names), str(names))
    found = {name: path for name, path in labels.items() if _is_for_testing(name) == (split == "test")}
    if not found:
        raise FolderError(
            f"none of the {len(labels)} parsing maps in {root / 'segm'} belongs to the split {split}; list its names "
            f"in {names}"
        )
    return found


def _is_for_testing(name: str) -> bool:
    item = re.search(r"id_\d+", name)
    return zlib.crc32((item.group() if item else name).encode()) % TEST_SHARE == 0
