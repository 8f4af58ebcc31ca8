"""Which pictures the tasks want of each face. The same question gets the same answer when sampling and when scoring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ldm.evaluation.faces import Faces
from ldm.evaluation.protocol import Protocol

FIRST_STAGE = "first_stage"  # the ceiling of `reconstruct`: encoded and decoded, not sampled
UNCHANGED = "reconstruct"  # what a swap is compared to: the same shape and seed in the face's own style


@dataclass(frozen=True)
class Picture:
    """One picture to make.

    Attributes:
        folder: where it goes, below samples/.
        face: number of the face that gives the shape, and the style where nothing else does.
        name: of the file, without its ending.
        seed: of the noise.
        regions: whose style comes from elsewhere.
        other: number of the face that they come from; None leaves them to chance.
    """

    folder: str
    face: int
    name: str
    seed: int
    regions: tuple[str, ...] = ()
    other: int | None = None

    @property
    def file(self) -> str:
        """The picture's path below samples/."""
        return f"{self.folder}/{self.name}.png"


def plan(faces: Faces, protocol: Protocol, tasks: Sequence[str], face: int) -> Iterator[Picture]:
    """Yield the pictures of one face; none of a face that cannot be read."""
    if faces[face] is None:
        return
    if {"reconstruct", "swap"} & {*tasks}:
        yield unchanged(faces, protocol, face)
    if "reconstruct" in tasks:
        yield Picture(FIRST_STAGE, face, faces.names[face], 0)
    if "swap" in tasks:
        for variant in protocol.swaps:
            if (swap := swapped(faces, protocol, variant, face)) is not None:
                yield swap
    for task in ("random", "noise"):
        if task in tasks:
            for variant in protocol.variants(task):
                yield from drawn(faces, protocol, task, variant, face)


def folder_of(task: str, variant: str) -> str:
    """Return where a variant's pictures go, below samples/."""
    return task if variant == task else f"{task}/{variant}"


def unchanged(faces: Faces, protocol: Protocol, face: int) -> Picture:
    """Return the picture of a face in its own style."""
    return Picture(UNCHANGED, face, faces.names[face], _seed(faces, protocol, face))


def swapped(faces: Faces, protocol: Protocol, variant: str, face: int) -> Picture | None:
    """Return the picture of a face with another's style, from the same noise as `unchanged`; None if there is no other.

    Of the whole style of another face only the regions count that it has: of the others it shows nothing.
    """
    regions = list(protocol.swaps[variant])
    other = faces.partner(face, regions)
    if other is None:
        return None
    taken = tuple(regions or faces.regions_of(other))
    seed = _seed(faces, protocol, face)
    return Picture(folder_of("swap", variant), face, faces.names[face], seed, taken, other)


def drawn(faces: Faces, protocol: Protocol, task: str, variant: str, face: int) -> list[Picture]:
    """Return the pictures of a face whose style, or that of some regions, chance decides; none if it lacks a region."""
    regions = tuple(protocol.variants(task)[variant]) or faces.label_set.regions
    if task == "random" and not set(regions) <= set(faces.regions_of(face)):
        return []
    folder, name = folder_of(task, variant), faces.names[face]
    return [
        Picture(folder, face, f"{name}_{sample}", _seed(faces, protocol, face, sample), regions)
        for sample in range(protocol.samples)
    ]


def _seed(faces: Faces, protocol: Protocol, face: int, sample: int = 0) -> int:
    return int(protocol.sampling.get("seed", 0)) + face + len(faces) * sample
