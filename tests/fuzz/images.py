"""Photos and label maps with changed bytes."""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ldm.data.images import load_image, load_labels, to_uint8
from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.photo_file import PhotoFile
from tests import small
from tests.fuzz.changes import changed_bytes
from tests.fuzz.oracle import Case

PHOTO_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA")


def photo_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Photos of each format. A PNG has checksums: what is read from it is what was written."""
    face = Image.fromarray(to_uint8(small.batch(1, 32)["image"][0]))
    number = 0
    while True:
        rng = random.Random(f"{seed} photo {number}")
        kind = PHOTO_FORMATS[number % len(PHOTO_FORMATS)]
        whole = number // len(PHOTO_FORMATS) % 2 == 0
        file = folder / f"photo_{number}.{kind.lower()}"
        yield _photo(file, _encoded(face, kind), rng, whole and kind == "PNG", whole)
        number += 1


def _photo(file: Path, sound: bytes, rng: random.Random, checked: bool, as_image: bool) -> Case:
    changed, change = changed_bytes(rng, sound)
    read: list[torch.Tensor] = []

    def call() -> None:
        file.write_bytes(changed)
        try:
            if as_image:
                read.append(load_image(file))
            else:
                PhotoFile.open(file)
        finally:
            file.unlink()

    def right() -> None:
        if not checked:
            return
        with Image.open(io.BytesIO(sound)) as image:
            assert np.array_equal(to_uint8(read[0]), np.asarray(image.convert("RGB"))), "other pixels"

    return Case(f"{file.suffix}: {change}", call, (file.name,), right)


def label_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Grey and palette label maps: the labels are those that were written, or an error."""
    labels = small.batch(1, 32)["labels"][0].numpy()
    grey = Image.fromarray(labels)
    palette = grey.convert("L")
    palette.putpalette([value for colour in CELEBAMASK_HQ.palette for value in colour])
    sound = [_encoded(grey, "PNG"), _encoded(palette, "PNG")]
    number = 0
    while True:
        rng = random.Random(f"{seed} label map {number}")
        yield _label_map(folder / f"labels_{number}.png", sound[number % 2], labels, rng)
        number += 1


def _label_map(file: Path, sound: bytes, labels: np.ndarray, rng: random.Random) -> Case:
    changed, change = changed_bytes(rng, sound)
    read: list[torch.Tensor] = []

    def call() -> None:
        file.write_bytes(changed)
        try:
            read.append(load_labels(file, CELEBAMASK_HQ))
        finally:
            file.unlink()

    def right() -> None:
        assert np.array_equal(read[0].numpy(), labels), "other labels"

    return Case(change, call, (file.name,), right)


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
