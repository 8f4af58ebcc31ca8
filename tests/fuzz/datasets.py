"""Tar shards and latent caches with changed bytes, and with changed values in their indexes."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ldm.data.datasets.latent_cache import CachedLatents, _open, write_latents
from ldm.data.datasets.shard_writer import dataset_samples, write_shards
from ldm.data.datasets.sharded_dataset import INDEX
from ldm.data.datasets.shards import ShardedFaces
from ldm.data.datasets.tar_shard import open_shard
from ldm.data.synthetic.dataset import SyntheticFaces
from tests.fuzz.changes import changed_bytes, changed_value
from tests.fuzz.oracle import Case

SOURCE = {
    "target": "ldm.data.synthetic.dataset.SyntheticFaces",
    "params": {"size": 16, "length": 4, "seed": 3, "horizontal_flip": True},
}


def shard_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Tar shards. The PNGs in them have checksums: the items are those that were written."""
    source = dataset_samples(SyntheticFaces(16, 4, seed=3), 0)
    write_shards(folder / "shards", source.label_set, source.samples, 2)

    def items(path: Path) -> list[dict[str, Any]]:
        open_shard.cache_clear()
        faces = ShardedFaces(str(path), 16)
        return [faces[i] for i in range(len(faces))]

    return _cases(folder, "shards", seed, items, ("image", "labels"))


def latent_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Latent caches. Their tensors have no checksum, so that their values may differ."""
    faces = SyntheticFaces(16, 4, seed=3)
    write_latents(
        folder / "latents",
        faces,
        lambda image: image[:, :, ::4, ::4].contiguous(),
        source=SOURCE,
        first_stage="one",
        shard_size=2,
    )

    def items(path: Path) -> list[dict[str, Any]]:
        _open.cache_clear()
        cached = CachedLatents(path, SOURCE)
        return [cached[i] for i in range(len(cached))]

    return _cases(folder, "latents", seed, items, ())


def _cases(
    folder: Path, kind: str, seed: int, items: Callable[[Path], list[dict[str, Any]]], same: tuple[str, ...]
) -> Iterator[Case]:
    expected = items(folder / kind)
    files = sorted(file.name for file in (folder / kind).iterdir())
    number = 0
    while True:
        rng = random.Random(f"{seed} {kind} {number}")
        place = folder / f"{kind}_{number}"
        name = INDEX if number % 2 else rng.choice(files)
        data = (folder / kind / name).read_bytes()
        if number % 2:
            index, _, change = changed_value(rng, json.loads(data))
            changed = json.dumps(index).encode()
        else:
            changed, change = changed_bytes(rng, data)
        yield _case(
            folder / kind, place, name, changed, change, items, expected if name != INDEX else [], same
        )
        number += 1


def _case(
    sound: Path,
    place: Path,
    name: str,
    changed: bytes,
    change: str,
    items: Callable[[Path], list[dict[str, Any]]],
    expected: list[dict[str, Any]],
    same: tuple[str, ...],
) -> Case:
    read: list[dict[str, Any]] = []

    def call() -> None:
        shutil.copytree(sound, place)
        (place / name).write_bytes(changed)
        try:
            read.extend(items(place))
        finally:
            shutil.rmtree(place)

    def right() -> None:
        for found, wanted in zip(read, expected, strict=False):
            assert all(torch.equal(found[key], wanted[key]) for key in same), "another item"

    return Case(f"{name}: {change}", call, (place.name,), right)
