"""Generate the missing images of an evaluation, in batches; each process generates those of its faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ldm.data.faces import Face
from ldm.data.images import save_png
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import FIRST_STAGE, ImageSpec, plan
from ldm.evaluation.protocol import Protocol
from ldm.pipeline import FacePipeline, StyleCode


def generate_missing(
    pipe: FacePipeline,
    faces: Faces,
    protocol: Protocol,
    tasks: Sequence[str],
    folder: Path,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> int:
    """Generate the images that `folder` lacks; return their number.

    Args:
        pipe: the model.
        faces: the faces.
        protocol: variants and sampling options.
        tasks: some of `ldm.evaluation.protocol.TASKS`.
        folder: folder samples/ of the evaluation. Images are written after each batch, so that an
            interruption loses at most one batch.
        batch_size: images sampled at once.
        rank: rank of this process, which generates the images of faces rank, rank + world_size, ...
        world_size: number of processes.
    """
    mine = range(rank, len(faces), world_size)
    done = 0
    with tqdm(total=len(mine), unit="face", desc="sampling", disable=rank > 0) as bar:
        missing = _missing(faces, protocol, tasks, folder, mine, bar)
        for batch in _batches(missing, batch_size):
            _generate(pipe, faces, protocol, batch, folder)
            done += len(batch)
    return done


def _missing(
    faces: Faces, protocol: Protocol, tasks: Sequence[str], folder: Path, mine: Iterable[int], bar: tqdm
) -> Iterator[ImageSpec]:
    for face in mine:
        for spec in plan(faces, protocol, tasks, face):
            if not (folder / spec.file).is_file():
                yield spec
        bar.update()


def _batches(specs: Iterable[ImageSpec], size: int) -> Iterator[list[ImageSpec]]:
    """Group images into batches that are either all sampled or all first-stage reconstructions."""
    waiting: dict[bool, list[ImageSpec]] = {True: [], False: []}
    for spec in specs:
        batch = waiting[spec.folder == FIRST_STAGE]
        batch.append(spec)
        if len(batch) == size:
            yield batch.copy()
            batch.clear()
    yield from filter(None, waiting.values())


def _generate(
    pipe: FacePipeline, faces: Faces, protocol: Protocol, batch: list[ImageSpec], folder: Path
) -> None:
    used = {index for spec in batch for index in (spec.face, spec.style_source) if index is not None}
    loaded = {index: _readable(faces, index) for index in sorted(used)}
    if batch[0].folder == FIRST_STAGE:
        images = pipe.autoencode(torch.stack([loaded[spec.face].image for spec in batch]))  # (B, 3, H, W)
    else:
        styles = _styles(pipe, loaded, batch)
        labels = torch.stack([loaded[spec.face].labels for spec in batch])  # (B, H, W)
        options = {**protocol.sampling, "seed": [spec.seed for spec in batch]}
        images = pipe(labels, styles, **options)  # (B, 3, H, W)
    for spec, image in zip(batch, images.cpu(), strict=True):
        save_png(folder / spec.file, image)


def _styles(pipe: FacePipeline, faces: dict[int, Face], batch: list[ImageSpec]) -> list[StyleCode]:
    """Return the style of each image; each face is encoded once."""
    indices = list(faces)
    labels = torch.stack([faces[index].labels for index in indices])  # (N, H, W)
    codes = pipe.read_style(torch.stack([faces[index].image for index in indices]), labels)
    own = dict(zip(indices, codes, strict=True))
    random = {}
    if any(spec.regions and spec.style_source is None for spec in batch):
        random = dict(zip(indices, pipe.null_style(labels), strict=True))
    styles = []
    for spec in batch:
        source = random.get(spec.face) if spec.style_source is None else own[spec.style_source]
        style = own[spec.face]
        styles.append(style if source is None else style.swap(source, spec.regions))
    return styles


def _readable(faces: Faces, index: int) -> Face:
    face = faces[index]
    assert face is not None  # only faces that could be read are planned
    return face
