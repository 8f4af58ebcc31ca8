"""The faces of an evaluation: of a folder, or generated ones, whose swaps have true answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.data.datasets.folders import FolderError
from ldm.data.faces import Face, FaceFiles
from ldm.data.images import ImageError
from ldm.data.labels import LabelSet
from ldm.data.synthetic.dataset import SyntheticFaces, draw_shape, draw_style, render
from ldm.evaluation.protocol import SYNTHETIC, Protocol
from ldm.targets import ConfigError

SMALLEST = 4  # pixels of a region; of fewer no style can be read


class Faces:
    """Faces by number 0..N-1, loaded when they are wanted; one that cannot be read is noted and left out.

    Attributes:
        names: of all faces.
        problems: one sentence for every face that could not be read so far.
    """

    def __init__(self, names: Sequence[str], label_set: LabelSet) -> None:
        self.names, self.label_set = list(names), label_set
        self.problems: dict[int, str] = {}
        self._cached = lru_cache(maxsize=64)(self._load)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Face | None:
        """Return a face; None if its files cannot be used."""
        if index in self.problems:
            return None
        try:
            return self._cached(index)
        except ImageError as error:
            self.problems[index] = str(error)
            return None

    def partner(self, index: int, regions: Sequence[str]) -> int | None:
        """Return the next face that has all of these regions; None if `index` itself lacks one, or no other has all."""
        wanted = self.label_set.indices(regions)
        if not self._has(index, wanted):
            return None
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            if self._has(other, wanted):
                return other
        return None

    def truth(self, index: int, other: int, regions: Sequence[str]) -> Tensor | None:
        """Return the picture (3, H, W) of face `index` with `regions` in the looks of `other`; None if nobody knows."""
        raise NotImplementedError

    def regions_of(self, index: int) -> list[str]:
        """Return the regions that a face has."""
        return [name for i, name in enumerate(self.label_set.regions) if self._has(index, [i])]

    def _has(self, index: int, regions: Sequence[int]) -> bool:
        face = self[index]
        return face is not None and all(int((face.labels == region).sum()) >= SMALLEST for region in regions)

    def _load(self, index: int) -> Face:
        raise NotImplementedError


class FolderFaces(Faces):
    """Faces of a folder with images/ and labels/, those numbered first..last."""

    def __init__(self, protocol: Protocol, label_set: LabelSet, size: tuple[int, int]) -> None:
        self.files = FaceFiles.in_folder(Path(protocol.data).expanduser(), label_set, size)
        if protocol.first is not None or protocol.last is not None:
            self.files.pairs = [
                pair for pair in self.files.pairs if _within(pair.name, protocol.first, protocol.last)
            ]
        if not self.files.pairs:
            raise FolderError(f"{protocol.data} has no face numbered {protocol.first} .. {protocol.last}")
        super().__init__([pair.name for pair in self.files.pairs], label_set)

    def truth(self, index: int, other: int, regions: Sequence[str]) -> None:
        """Return None: nobody has seen that face."""
        return None

    def _load(self, index: int) -> Face:
        return self.files.load(self.files.pairs[index])


class GeneratedFaces(Faces):
    """Generated faces first..last of a series."""

    def __init__(self, protocol: Protocol, label_set: LabelSet, size: tuple[int, int]) -> None:
        if label_set != SyntheticFaces.label_set or size[0] != size[1]:
            raise ConfigError(
                f"generated faces are square, with {SyntheticFaces.label_set.name}'s regions; "
                f"this model makes {size[0]}x{size[1]} with {label_set.name}'s"
            )
        assert protocol.first is not None and protocol.last is not None  # the protocol has checked it
        self.first, self.size = protocol.first, size[0]
        count = protocol.last - protocol.first + 1
        self.data = SyntheticFaces(self.size, count, seed=protocol.series, start=self.first)
        super().__init__([f"{self.first + i:06d}" for i in range(count)], label_set)

    def truth(self, index: int, other: int, regions: Sequence[str]) -> Tensor:
        """Draw face `index` with `regions` in the looks of `other`."""
        series = self.data.seed
        style = draw_style(series, self.first + index).swap(draw_style(series, self.first + other), regions)
        picture, _ = render(draw_shape(series, self.first + index), style, self.size)
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 127.5 - 1

    def _load(self, index: int) -> Face:
        item = self.data[index]
        return Face(item["name"], item["image"], item["labels"])


def open_faces(protocol: Protocol, label_set: LabelSet, size: tuple[int, int]) -> Faces:
    """Return the faces that a protocol names.

    Raises:
        FolderError, ImageError, ConfigError: there are none, or they do not fit the model.
    """
    kind = GeneratedFaces if protocol.data == SYNTHETIC else FolderFaces
    return kind(protocol, label_set, size)


def _within(name: str, first: int | None, last: int | None) -> bool:
    if not name.isdecimal():
        return False
    return (first is None or int(name) >= first) and (last is None or int(name) <= last)
