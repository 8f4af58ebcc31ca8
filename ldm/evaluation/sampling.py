"""Make the pictures of an evaluation: in batches, those that are not there yet, each process a share of the faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ldm.data.faces import Face
from ldm.data.images import save_png
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import FIRST_STAGE, Picture, plan
from ldm.evaluation.protocol import Protocol
from ldm.pipeline import FacePipeline, StyleCode


def make_pictures(
    pipe: FacePipeline,
    faces: Faces,
    protocol: Protocol,
    tasks: Sequence[str],
    folder: Path,
    *,
    batch_size: int,
    share: tuple[int, int] = (0, 1),
) -> int:
    """Make what is missing below `folder` and return how many pictures that were.

    Args:
        pipe: the model.
        faces: the faces.
        protocol: how to sample.
        tasks: some of `ldm.evaluation.protocol.TASKS`.
        folder: samples/ of the evaluation. Each picture is written at once, so that stopping loses one batch.
        batch_size: pictures at once.
        share: this process and the number of all; each takes every n-th face.
    """
    rank, world = share
    mine = range(rank, len(faces), world)
    done = 0
    with tqdm(total=len(mine), unit="face", desc="sampling", disable=rank > 0) as bar:
        missing = _missing(faces, protocol, tasks, folder, mine, bar)
        for batch in _batches(missing, batch_size):
            _make(pipe, faces, protocol, batch, folder)
            done += len(batch)
    return done


def _missing(
    faces: Faces, protocol: Protocol, tasks: Sequence[str], folder: Path, mine: Iterable[int], bar: tqdm
) -> Iterator[Picture]:
    for face in mine:
        for picture in plan(faces, protocol, tasks, face):
            if not (folder / picture.file).is_file():
                yield picture
        bar.update()


def _batches(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Group pictures that are made in the same way."""
    waiting: dict[bool, list[Picture]] = {True: [], False: []}
    for picture in pictures:
        batch = waiting[picture.folder == FIRST_STAGE]
        batch.append(picture)
        if len(batch) == size:
            yield batch.copy()
            batch.clear()
    yield from filter(None, waiting.values())


def _make(pipe: FacePipeline, faces: Faces, protocol: Protocol, batch: list[Picture], folder: Path) -> None:
    used = {number for picture in batch for number in (picture.face, picture.other) if number is not None}
    found = {number: _present(faces, number) for number in sorted(used)}
    if batch[0].folder == FIRST_STAGE:
        images = pipe.reconstruct(torch.stack([found[picture.face].image for picture in batch]))
    else:
        styles = _styles(pipe, found, batch)
        labels = torch.stack([found[picture.face].labels for picture in batch])
        options = {**protocol.sampling, "seed": [picture.seed for picture in batch]}
        images = pipe(labels, styles, **options)
    for picture, image in zip(batch, images.cpu(), strict=True):
        save_png(folder / picture.file, image)


def _styles(pipe: FacePipeline, found: dict[int, Face], batch: list[Picture]) -> list[StyleCode]:
    """Return the style of each picture; each face is read once."""
    numbers = list(found)
    labels = torch.stack([found[number].labels for number in numbers])
    own = pipe.read_style(torch.stack([found[number].image for number in numbers]), labels)
    read = dict(zip(numbers, own, strict=True))
    chance = {}
    if any(picture.regions and picture.other is None for picture in batch):
        chance = dict(zip(numbers, pipe.random_style(labels), strict=True))
    styles = []
    for picture in batch:
        source = chance.get(picture.face) if picture.other is None else read[picture.other]
        style = read[picture.face]
        styles.append(style if source is None else style.swap(source, picture.regions))
    return styles


def _present(faces: Faces, number: int) -> Face:
    face = faces[number]
    assert face is not None  # only faces that could be read are planned
    return face
