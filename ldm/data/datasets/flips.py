"""Random horizontal flips that are a function of (seed, epoch, index)."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.labels import LabelSet


class EpochFlips:
    """Flips half of the items of each epoch: a function of (seed, epoch, index), of no other random state."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # In shared memory, so that persistent workers see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, in running workers too."""
        self._epoch.fill_(epoch)

    def is_flipped(self, index: int) -> bool:
        """Return whether an item is flipped in this epoch."""
        key = f"{self.seed} {int(self._epoch)} {index}".encode()
        return bool(hashlib.blake2b(key, digest_size=1).digest()[0] & 1)


class FlippedDataset(Dataset[dict[str, Any]]):
    """Base class of datasets with optional random flips.

    Attributes:
        label_set: label set of the label maps.
        flips: the flips; None without.
    """

    label_set: Any
    flips: EpochFlips | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the flips, in running workers too."""
        if self.flips is not None:
            self.flips.set_epoch(epoch)


def flip(item: dict[str, Tensor], label_set: LabelSet) -> None:
    """Flip "image" (3, H, W) and "labels" (H, W) of an item in place; left and right regions swap labels."""
    if "image" in item:  # in numpy, for the reason given in LabelSet.flip
        item["image"] = torch.from_numpy(np.flip(item["image"].numpy(), -1).copy())
    if "labels" in item:
        item["labels"] = label_set.flip(item["labels"])
