"""Score the pictures of a task as a whole: the masks that a parser finds in them, their distance to the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.faces import Face
from ldm.evaluation.comparing import read_back
from ldm.evaluation.extractors import Extractor
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import drawn, swapped, unchanged
from ldm.evaluation.protocol import Protocol
from ldm.metrics.distances import cmmd, frechet, kid
from ldm.metrics.overlap import Overlap, confusion, overlap
from ldm.parsing import FaceParser

ENOUGH = 2000  # pictures; of fewer, a Fréchet distance says more about their number than about the model
PARSED = 16  # pictures at once


@dataclass(frozen=True)
class PictureSet:
    """The pictures of a variant: one per face, the first where there are several."""

    name: str
    files: dict[int, str]  # number of the face -> path below samples/

    def pictures(self, folder: Path) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the face, picture) of those that were made."""
        for number, file in self.files.items():
            if (picture := read_back(folder, file)) is not None:
                yield number, picture


def picture_sets(faces: Faces, protocol: Protocol, tasks: list[str]) -> list[PictureSet]:
    """Return the sets of all variants of these tasks."""
    found = []
    for task in tasks:
        for variant in protocol.variants(task):
            files = {}
            for number in range(len(faces)):
                if (file := _file_of(faces, protocol, task, variant, number)) is not None:
                    files[number] = file
            if files:
                found.append(PictureSet(variant if variant == task else f"{task} {variant}", files))
    return found


def _file_of(faces: Faces, protocol: Protocol, task: str, variant: str, number: int) -> str | None:
    if faces[number] is None:
        return None
    if task == "reconstruct":
        return unchanged(faces, protocol, number).file
    if task == "swap":
        swap = swapped(faces, protocol, variant, number)
        return None if swap is None else swap.file
    pictures = drawn(faces, protocol, task, variant, number)
    return pictures[0].file if pictures else None


def score_masks(parser: FaceParser, faces: Faces, sets: list[PictureSet], folder: Path) -> dict[str, Overlap]:
    """Return how well the parser finds the label maps in the photos ("data") and in each set of pictures."""
    photos = ((number, face.image) for number, face in _photos(faces))
    found = {"data": _parsed(parser, faces, tqdm(photos, "parsing data", len(faces), unit="face"))}
    for one in sets:
        pictures = tqdm(one.pictures(folder), f"parsing {one.name}", len(one.files), unit="face")
        found[one.name] = _parsed(parser, faces, pictures)
    return found


def _photos(faces: Faces) -> Iterator[tuple[int, Face]]:
    """Yield those that can be read."""
    for number in range(len(faces)):
        if (face := faces[number]) is not None:
            yield number, face


def _parsed(parser: FaceParser, faces: Faces, pictures: Any) -> Overlap:
    R = len(faces.label_set)
    counts = torch.zeros(R, R + 1, dtype=torch.int64)
    waiting: list[tuple[Tensor, Tensor]] = []

    def count() -> Tensor:
        images, labels = (torch.stack(part) for part in zip(*waiting, strict=True))
        waiting.clear()
        return confusion(parser.parse(images), labels, R)

    for number, picture in pictures:
        face = faces[number]
        assert face is not None  # it had a picture made of it
        waiting.append((picture, face.labels))
        if len(waiting) == PARSED:
            counts += count()
    if waiting:
        counts += count()
    return overlap(counts)


def score_distribution(
    extractor: Extractor, faces: Faces, sets: list[PictureSet], folder: Path, cache: Path
) -> dict[str, dict[str, float]]:
    """Return the distances of each set to the data, by the measures that go with an extractor's features.

    A set of which there are fewer than two pictures has none.
    """
    real = extractor.of_data(lambda: (face.image for _, face in _photos(faces)), cache)
    found = {}
    for one in sets:
        pictures = (picture for _, picture in one.pictures(folder))
        made = extractor.of(tqdm(pictures, f"{extractor.name} of {one.name}", len(one.files), unit="face"))
        if min(len(made), len(real)) >= 2:
            found[one.name] = {
                "pictures": float(len(made)),
                **{name: measure(made, real) for name, measure in MEASURES[extractor.name].items()},
            }
    return found


# What is usually computed from which features.
MEASURES: dict[str, dict[str, Callable[[Tensor, Tensor], float]]] = {
    "inception": {"KID": kid, "FID": frechet},
    "dinov2": {"FD-DINOv2": frechet},
    "clip": {"CMMD": cmmd},
    "efficientnet": {"KID (EfficientNet)": kid, "FD (EfficientNet)": frechet},
    "parser": {"KID (parser)": kid, "FD (parser)": frechet},
}
