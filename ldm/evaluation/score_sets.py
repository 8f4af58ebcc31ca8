"""Metrics of sets of images: mask fidelity by a face parser, and distances to the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.faces import Face
from ldm.evaluation.comparison import load_sample
from ldm.evaluation.extractors import Extractor
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import own_style, random_styles, swapped
from ldm.evaluation.protocol import Protocol
from ldm.metrics.distances import cmmd, frechet, kid
from ldm.metrics.overlap import Overlap, confusion, overlap
from ldm.parsing import FaceParser

MIN_FRECHET = 2000  # images; the bias of Fréchet distances of smaller sets is large
PARSER_BATCH = 16
# Distances that are usual for the features of each extractor.
DISTANCES: dict[str, dict[str, Callable[[Tensor, Tensor], float]]] = {
    "inception": {"KID": kid, "FID": frechet},
    "dinov2": {"FD-DINOv2": frechet},
    "clip": {"CMMD": cmmd},
    "efficientnet": {"KID (EfficientNet)": kid, "FD (EfficientNet)": frechet},
    "parser": {"KID (parser)": kid, "FD (parser)": frechet},
}


@dataclass(frozen=True)
class ImageSet:
    """The images of a variant, one per face.

    Attributes:
        name: name in the report.
        files: index of the face -> path below samples/.
    """

    name: str
    files: dict[int, str]

    def load(self, folder: Path) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of the face, image (3, H, W) in [-1, 1]) for each image that exists."""
        for index, file in self.files.items():
            if (image := load_sample(folder, file)) is not None:
                yield index, image


def image_sets(faces: Faces, protocol: Protocol, tasks: list[str]) -> list[ImageSet]:
    """Return the sets of all variants of these tasks."""
    sets = []
    for task in tasks:
        for variant in protocol.variants(task):
            files = {}
            for index in range(len(faces)):
                if (file := _first_file(faces, protocol, task, variant, index)) is not None:
                    files[index] = file
            if files:
                sets.append(ImageSet(variant if variant == task else f"{task} {variant}", files))
    return sets


def _first_file(faces: Faces, protocol: Protocol, task: str, variant: str, index: int) -> str | None:
    """Return the file of a face's first image; None if the variant has none of it."""
    if faces[index] is None:
        return None
    if task == "reconstruct":
        return own_style(faces, protocol, index).file
    if task == "swap":
        swap = swapped(faces, protocol, variant, index)
        return None if swap is None else swap.file
    specs = random_styles(faces, protocol, task, variant, index)
    return specs[0].file if specs else None


def score_masks(parser: FaceParser, faces: Faces, sets: list[ImageSet], folder: Path) -> dict[str, Overlap]:
    """Compare the parsed label maps of the photos ("data") and of each set with the label maps of the faces."""
    photos = ((index, face.image) for index, face in _readable(faces))
    scores = {"data": _parse(parser, faces, tqdm(photos, "parsing data", len(faces), unit="face", delay=2))}
    for one in sets:
        images = tqdm(one.load(folder), f"parsing {one.name}", len(one.files), unit="face", delay=2)
        scores[one.name] = _parse(parser, faces, images)
    return scores


def score_distribution(
    extractor: Extractor, faces: Faces, sets: list[ImageSet], folder: Path, cache: Path
) -> dict[str, dict[str, float]]:
    """Return the distances between each set and the photos; sets of fewer than two images are left out."""
    real = extractor.extract_cached(lambda: (face.image for _, face in _readable(faces)), cache)  # (N, D)
    distances = {}
    for one in sets:
        images = (image for _, image in one.load(folder))
        progress = tqdm(images, f"{extractor.name} of {one.name}", len(one.files), unit="face", delay=2)
        generated = extractor.extract(progress)  # (M, D)
        if min(len(generated), len(real)) >= 2:
            distances[one.name] = {
                "pictures": float(len(generated)),  # a key of report.json
                **{name: distance(generated, real) for name, distance in DISTANCES[extractor.name].items()},
            }
    return distances


def _readable(faces: Faces) -> Iterator[tuple[int, Face]]:
    """Yield (index, face) of the faces that can be read."""
    for index in range(len(faces)):
        if (face := faces[index]) is not None:
            yield index, face


def _parse(parser: FaceParser, faces: Faces, images: Iterable[tuple[int, Tensor]]) -> Overlap:
    """Return the overlap of the parsed label maps of images (3, H, W) with those of their faces."""
    R = len(faces.label_set)
    counts = torch.zeros(R, R + 1, dtype=torch.int64)
    waiting: list[tuple[Tensor, Tensor]] = []

    def parse_waiting() -> Tensor:
        batch, labels = (torch.stack(part) for part in zip(*waiting, strict=True))  # (B, 3, H, W), (B, H, W)
        waiting.clear()
        return confusion(parser.parse(batch), labels, R)

    for index, image in images:
        face = faces[index]
        assert face is not None  # only readable faces have images
        waiting.append((image, face.labels))
        if len(waiting) == PARSER_BATCH:
            counts += parse_waiting()
    if waiting:
        counts += parse_waiting()
    return overlap(counts)
