"""Photos and label maps with changed bytes."""

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ldm.data.images import load_image
from ldm.data.label_maps import load_labels, save_labels
from ldm.data.labels import CELEBAMASK_HQ
from tests import small
from tests.fuzz.changes import changed_bytes
from tests.fuzz.oracle import Case

SIZE = (48, 40)  # of the photos, (H, W)


def photo_cases(folder: Path) -> Iterator[Case]:
    """Photos: decoded to the size asked for, or refused."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    sound = {}
    for suffix in ("png", "jpg", "webp", "bmp", "tif"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        sound[suffix] = buffer.getvalue()

    def read(file: Path) -> Callable[[], None]:
        def right() -> None:
            image = load_image(file, SIZE)
            assert image.shape == (3, *SIZE) and bool(image.isfinite().all())

        return right

    yield from _changed(folder, "photo", sound, lambda file: load_image(file, SIZE), read)


def label_map_cases(folder: Path) -> Iterator[Case]:
    """Label maps: the same labels, or refused; a changed label is never accepted."""
    labels = small.batch(1, 32)["labels"][0].to(torch.uint8)
    file = folder / "sound.png"
    save_labels(file, labels, CELEBAMASK_HQ)

    def read(changed: Path) -> Callable[[], None]:
        def right() -> None:
            found = load_labels(changed, CELEBAMASK_HQ, (32, 32))
            assert torch.equal(found.long(), labels.long()), "other labels"

        return right

    sound = {"png": file.read_bytes()}
    yield from _changed(
        folder, "labels", sound, lambda changed: load_labels(changed, CELEBAMASK_HQ, (32, 32)), read
    )


def _changed(
    folder: Path,
    name: str,
    sound: dict[str, bytes],
    load: Callable[[Path], object],
    right: Callable[[Path], Callable[[], None]],
) -> Iterator[Case]:
    """Yield cases of files with changed bytes, of each format in turn."""
    number = 0
    while True:
        suffix = list(sound)[number % len(sound)]
        content, change = changed_bytes(random.Random(f"{name} {number}"), sound[suffix])
        file = folder / f"{name}.{suffix}"

        def call(file: Path = file, content: bytes = content) -> None:
            file.write_bytes(content)
            load(file)

        yield Case(f"{file.name}: {change}", call, (file.name,), right(file))
        number += 1
