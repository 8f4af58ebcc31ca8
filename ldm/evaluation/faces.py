"""Faces to evaluate on: a folder, or synthetic faces, for which the ground truth of every swap can be rendered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
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

MIN_PIXELS = 4  # smaller regions are treated as absent: they hold too little style


class Faces:
    """Faces 0..N-1, loaded on demand; faces that cannot be read are recorded and skipped.

    Attributes:
        names: names of all faces.
        problems: index -> error message of each face that could not be read so far.
        inputs: files that are read.
    """

    def __init__(self, names: Sequence[str], label_set: LabelSet, inputs: Sequence[Path] = ()) -> None:
        self.names, self.label_set, self.inputs = list(names), label_set, list(inputs)
        self.problems: dict[int, str] = {}
        self._cached = lru_cache(maxsize=64)(self._load)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Face | None:
        """Return a face; None if its files cannot be read."""
        if index in self.problems:
            return None
        try:
            return self._cached(index)
        except ImageError as error:
            self.problems[index] = str(error)
            return None

    def partner(self, index: int, regions: Sequence[str]) -> int | None:
        """Return the next face that has all of `regions`; None if `index` lacks one, or no other face has all."""
        required = self.label_set.indices(regions)
        if not self._has(index, required):
            return None
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            if self._has(other, required):
                return other
        return None

    def digest(self) -> str:
        """Return a hash of the faces; partners and seeds of swaps depend on the names of all of them."""
        hashed = blake2b(digest_size=8)
        for name, files in zip(self.names, self._files(), strict=True):
            hashed.update(f"{name}\0".encode())
            for file in files:
                hashed.update(_content(file))
        return hashed.hexdigest()

    def _files(self) -> Iterable[Sequence[Path]]:
        """Return the files of each face."""
        return [[]] * len(self)

    def truth(self, index: int, other: int, regions: Sequence[str]) -> Tensor | None:
        """Return the true result (3, H, W) of swapping the style of `regions` to that of `other`; None if unknown."""
        raise NotImplementedError

    def regions_of(self, index: int) -> list[str]:
        """Return the regions that a face has."""
        return [name for i, name in enumerate(self.label_set.regions) if self._has(index, [i])]

    def _has(self, index: int, regions: Sequence[int]) -> bool:
        face = self[index]
        return face is not None and all(
            int((face.labels == region).sum()) >= MIN_PIXELS for region in regions
        )

    def _load(self, index: int) -> Face:
        raise NotImplementedError


class FolderFaces(Faces):
    """Faces first..last of a folder with images/ and labels/."""

    def __init__(self, protocol: Protocol, label_set: LabelSet, size: tuple[int, int]) -> None:
        self.files = FaceFiles.in_folder(Path(protocol.data).expanduser(), label_set, size)
        if protocol.first is not None or protocol.last is not None:
            self.files.pairs = [
                pair for pair in self.files.pairs if _within(pair.name, protocol.first, protocol.last)
            ]
        if not self.files.pairs:
            raise FolderError(
                f"{protocol.data} has no face for first: {protocol.first}, last: {protocol.last}"
            )
        inputs = [
            path for pair in self.files.folder for path in (pair.image, pair.labels) if path is not None
        ]
        super().__init__([pair.name for pair in self.files.pairs], label_set, inputs)

    def _files(self) -> Iterable[Sequence[Path]]:
        return ([path for path in (pair.image, pair.labels) if path is not None] for pair in self.files.pairs)

    def truth(self, index: int, other: int, regions: Sequence[str]) -> None:
        """Return None: photos have no ground truth of swaps."""
        return None

    def _load(self, index: int) -> Face:
        return self.files.load(self.files.pairs[index])


class SyntheticSeries(Faces):
    """Synthetic faces first..last of a series."""

    def __init__(self, protocol: Protocol, label_set: LabelSet, size: tuple[int, int]) -> None:
        if label_set != SyntheticFaces.label_set or size[0] != size[1]:
            raise ConfigError(
                f"synthetic faces are square with the regions of {SyntheticFaces.label_set.name}, but the model's "
                f"images are {size[0]}x{size[1]} with those of {label_set.name}; evaluate it on a folder, --data FOLDER"
            )
        assert protocol.first is not None and protocol.last is not None  # checked by Protocol
        self.first, self.size = protocol.first, size[0]
        count = protocol.last - protocol.first + 1
        self.data = SyntheticFaces(self.size, count, seed=protocol.series, start=self.first)
        super().__init__([f"{self.first + i:06d}" for i in range(count)], label_set)

    def truth(self, index: int, other: int, regions: Sequence[str]) -> Tensor:
        """Render face `index` with the style of `other` in `regions`: (3, H, W) in [-1, 1]."""
        series = self.data.seed
        style = draw_style(series, self.first + index).swap(draw_style(series, self.first + other), regions)
        image, _ = render(draw_shape(series, self.first + index), style, self.size)  # (H, W, 3)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 127.5 - 1

    def _load(self, index: int) -> Face:
        item = self.data[index]
        return Face(item["name"], item["image"], item["labels"])


def open_faces(protocol: Protocol, label_set: LabelSet, size: tuple[int, int]) -> Faces:
    """Return the faces of a protocol.

    Raises:
        FolderError, ImageError, ConfigError: no faces, or faces that do not fit the model.
    """
    kind = SyntheticSeries if protocol.data == SYNTHETIC else FolderFaces
    return kind(protocol, label_set, size)


def _content(file: Path) -> bytes:
    """Return a hash of a file; constant for those that cannot be read, which are recorded as problems later."""
    try:
        return blake2b(file.read_bytes()).digest()
    except OSError:
        return b"unreadable"


def _within(name: str, first: int | None, last: int | None) -> bool:
    if not name.isdecimal():
        return False
    return (first is None or int(name) >= first) and (last is None or int(name) <= last)
