"""Several datasets as one."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch.utils.data import Dataset

from ldm.targets import ConfigError, instantiate_from_config


class Concatenated(Dataset[dict[str, Any]]):
    """The items of several datasets, one dataset after the other.

    Args:
        datasets: configs, each with `target` and `params`.

    Raises:
        ConfigError: no dataset, or datasets whose labels differ in meaning.
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
        """Choose the epoch's random flips of every dataset."""
        for part in self.parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
