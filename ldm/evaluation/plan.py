"""Images that each task needs per face: file, seed and style source, the same for sampling and for scoring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ldm.evaluation.faces import Faces
from ldm.evaluation.protocol import Protocol

FIRST_STAGE = "first_stage"  # encoded and decoded only: the upper bound of `reconstruct`
OWN_STYLE = "reconstruct"  # the baseline of swaps: same label map and seed, the face's own style


@dataclass(frozen=True)
class ImageSpec:
    """One image to generate.

    Attributes:
        folder: folder below samples/.
        face: index of the face that provides the label map, and the style of all regions but `regions`.
        name: file name without suffix.
        seed: seed of the noise.
        regions: regions whose style comes from `style_source`.
        style_source: index of the face that provides their style; None for a random style.
    """

    folder: str
    face: int
    name: str
    seed: int
    regions: tuple[str, ...] = ()
    style_source: int | None = None

    @property
    def file(self) -> str:
        """Path below samples/."""
        return f"{self.folder}/{self.name}.png"


def plan(faces: Faces, protocol: Protocol, tasks: Sequence[str], face: int) -> Iterator[ImageSpec]:
    """Yield the images of one face; none for a face that cannot be read."""
    if faces[face] is None:
        return
    if {"reconstruct", "swap"} & {*tasks}:
        yield own_style(faces, protocol, face)
    if "reconstruct" in tasks:
        yield ImageSpec(FIRST_STAGE, face, faces.names[face], 0)
    if "swap" in tasks:
        for variant in protocol.swaps:
            if (swap := swapped(faces, protocol, variant, face)) is not None:
                yield swap
    for task in ("random", "noise"):
        if task in tasks:
            for variant in protocol.variants(task):
                yield from random_styles(faces, protocol, task, variant, face)


def output_folders(protocol: Protocol, tasks: Sequence[str]) -> list[str]:
    """Return all folders below samples/ that these tasks write to."""
    folders = [OWN_STYLE] if {"reconstruct", "swap"} & {*tasks} else []
    if "reconstruct" in tasks:
        folders.append(FIRST_STAGE)
    varied = (task for task in tasks if task != "reconstruct")
    return folders + [folder_of(task, variant) for task in varied for variant in protocol.variants(task)]


def folder_of(task: str, variant: str) -> str:
    """Return the folder of a variant below samples/."""
    return task if variant == task else f"{task}/{variant}"


def own_style(faces: Faces, protocol: Protocol, face: int) -> ImageSpec:
    """Return the image of a face in its own style."""
    return ImageSpec(OWN_STYLE, face, faces.names[face], _seed(faces, protocol, face))


def swapped(faces: Faces, protocol: Protocol, variant: str, face: int) -> ImageSpec | None:
    """Return the image of a face in another face's style, with the noise of `own_style`; None without a partner.

    A swap of all regions takes those that the other face has; the others keep the face's own style.
    """
    regions = list(protocol.swaps[variant])
    source = faces.partner(face, regions)
    if source is None:
        return None
    taken = tuple(regions or faces.regions_of(source))
    seed = _seed(faces, protocol, face)
    return ImageSpec(folder_of("swap", variant), face, faces.names[face], seed, taken, source)


def random_styles(faces: Faces, protocol: Protocol, task: str, variant: str, face: int) -> list[ImageSpec]:
    """Return the images of a face with random styles in some regions; none if the face lacks one of them.

    A variant without regions takes those of the face; the task noise takes all.
    """
    every = faces.label_set.regions if task == "noise" else tuple(faces.regions_of(face))
    regions = tuple(protocol.variants(task)[variant]) or every
    if task == "random" and not set(regions) <= set(faces.regions_of(face)):
        return []
    folder, name = folder_of(task, variant), faces.names[face]
    return [
        ImageSpec(folder, face, f"{name}_{sample}", _seed(faces, protocol, face, sample), regions)
        for sample in range(protocol.samples)
    ]


def _seed(faces: Faces, protocol: Protocol, face: int, sample: int = 0) -> int:
    return int(protocol.sampling.get("seed", 0)) + face + len(faces) * sample
