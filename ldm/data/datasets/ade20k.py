"""ADE20K scene parsing (CVPR 2017, 150 classes of the challenge): photos of many sizes with label maps."""

from typing import ClassVar

import numpy as np

from ldm.data.datasets.split_dataset import Files, SplitDataset
from ldm.data.label_maps import label_table
from ldm.data.labels import ADE20K as REGIONS
from ldm.data.labels import LabelSet


class ADE20K(SplitDataset):
    """Scenes in the layout of the official download ADEChallengeData2016; `split` is "train" or "validation".

        images/training/ADE_train_00000001.jpg       images/validation/...
        annotations/training/ADE_train_00000001.png  annotations/validation/...

    The files store the classes as 1..150, and 0 for anything else. As in SPADE, class k becomes region k - 1,
    and "anything else" the last region, 150: R = 151. Arguments as in `SplitDataset`.
    """

    splits: ClassVar = {
        "train": "training",
        "training": "training",
        "val": "validation",
        "validation": "validation",
    }
    image_files = Files("images/{split}")
    label_files = Files("annotations/{split}", (".png",))

    def _label_encoding(self) -> tuple[LabelSet, np.ndarray]:
        """0 -> 150, k -> k - 1; values above 150 are invalid, 255 is unlabeled."""
        table = label_table(REGIONS)
        table[: len(REGIONS)] = np.roll(np.arange(len(REGIONS)), 1)
        return REGIONS, table
