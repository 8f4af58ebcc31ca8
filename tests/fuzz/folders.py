"""Datasets in shards, and latent caches, with changed bytes in one of their files."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.data.datasets.latent_cache import CachedLatents, write_latents
from ldm.data.datasets.shards import ShardedFaces
from ldm.data.datasets.tar_shard import open_shard
from ldm.data.synthetic.dataset import SyntheticFaces
from scripts import draw_faces, make_shards
from tests.fuzz.changes import changed_bytes
from tests.fuzz.oracle import Case

COUNT, SIZE = 6, 16
SOURCE = {
    "target": "ldm.data.synthetic.dataset.SyntheticFaces",
    "params": {"size": SIZE, "length": COUNT, "seed": 3},
}


def shard_cases(folder: Path) -> Iterator[Case]:
    """Tar shards and their index: the same images and labels, or refused."""
    draw_faces.main([str(folder / "faces"), "--count", str(COUNT), "--size", str(SIZE)])
    sound = folder / "sound"
    make_shards.main(["--data", str(folder / "faces"), "--out", str(sound), "--per-shard", "4"])

    def load(changed: Path) -> list[dict[str, Any]]:
        open_shard.cache_clear()
        dataset = ShardedFaces(str(changed), SIZE)
        return [dataset[i] for i in range(len(dataset))]

    yield from _changed(folder, "shards", sound, load, ("labels",))


def latent_cases(folder: Path) -> Iterator[Case]:
    """Latent caches: the same latents and labels, or refused."""
    sound = folder / "sound"
    faces = SyntheticFaces(SIZE, COUNT, seed=3)
    write_latents(sound, faces, _half, source=SOURCE, first_stage="one", shard_size=4)

    def load(changed: Path) -> list[dict[str, Any]]:
        dataset = CachedLatents(changed, SOURCE)
        return [dataset[i] for i in range(len(dataset))]

    yield from _changed(folder, "latents", sound, load, ("labels", "latent"))


def _half(image: Tensor) -> Tensor:
    """Return every second pixel, in place of a first stage."""
    return image[..., ::2, ::2]


def _changed(
    folder: Path,
    name: str,
    sound: Path,
    load: Callable[[Path], list[dict[str, Any]]],
    exact: tuple[str, ...],
) -> Iterator[Case]:
    """Yield cases of the folder with one changed file; entries in `exact` must be those of the sound folder."""
    before = {item["name"]: item for item in load(sound)}
    files = sorted(file.relative_to(sound) for file in sound.rglob("*") if file.is_file())
    number = 0
    while True:
        rng, place = random.Random(f"{name} {number}"), folder / f"{name}_{number}"
        file = rng.choice(files)
        content, change = changed_bytes(rng, (sound / file).read_bytes())

        def call(file: Path = file, content: bytes = content, place: Path = place) -> None:
            shutil.copytree(sound, place)
            (place / file).write_bytes(content)
            load(place)

        def right(place: Path = place) -> None:
            for item in load(place):
                expected = before[item["name"]]
                for entry in exact:
                    assert bool((item[entry] == expected[entry]).all()), f"other {entry} of {item['name']}"

        yield Case(f"{file}: {change}", call, (place.name,), right)
        shutil.rmtree(place)
        number += 1
