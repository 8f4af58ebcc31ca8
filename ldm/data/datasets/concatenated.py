"""Concatenation of datasets."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ldm.data.datasets.export import dataset_files
from ldm.data.datasets.flips import FlippedDataset
from ldm.targets import ConfigError, instantiate_from_config


class Concatenated(FlippedDataset):
    """Concatenation of datasets.

    Args:
        datasets: Configs of the datasets, each with `target` and `params`.

    Raises:
        ConfigError: no dataset, or different label sets.
    """

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        self.parts: list[Any] = [instantiate_from_config(config) for config in datasets]
        if not self.parts:
            raise ConfigError("datasets is empty; expected at least one config with target and params")
        self.label_set = getattr(self.parts[0], "label_set", None)
        names = {str(getattr(getattr(part, "label_set", None), "name", None)) for part in self.parts}
        if len(names) > 1:
            raise ConfigError(f"datasets must share one label set, got {', '.join(sorted(names))}")
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        part = bisect_right(self._ends, index)
        return self.parts[part][index - (self._ends[part - 1] if part else 0)]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the flips of every dataset."""
        for part in self.parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def files(self) -> list[Path]:
        """Return the files of all datasets."""
        return [file for part in self.parts for file in dataset_files(part)]
