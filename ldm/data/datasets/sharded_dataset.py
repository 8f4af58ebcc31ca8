"""Base class of datasets in shards."""

from pathlib import Path

import numpy as np

from ldm.data.datasets.flips import FlippedDataset

INDEX = "index.json"  # lists the shards and what they hold


class ShardedDataset(FlippedDataset):
    """Dataset whose items are consecutive rows of shards.

    Attributes:
        starts: (shards + 1,), index of the first item of each shard, and the number of items.
    """

    starts: np.ndarray

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, index: int) -> tuple[int, int, int]:
        """Return (index, shard, row in the shard) of an item; `index` may be negative.

        Raises:
            IndexError: `index` is out of range.
        """
        index = range(len(self))[index]
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return index, shard, index - int(self.starts[shard])

    def files(self) -> list[Path]:
        """Return the local files of the dataset."""
        raise NotImplementedError
