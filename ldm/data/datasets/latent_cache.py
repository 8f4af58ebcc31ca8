"""First-stage latents of a dataset, computed once, so that training does not run the first stage.

A cache is a folder of shards, `NNNNN-DIGEST.safetensors`, and `index.json`. A shard holds `pixels` (N, 3, H,
W) and `labels` (N, H, W), uint8, and `latents` (N, F, C, h, w), float32; F is 2 if the latents of the flipped
images are included, otherwise 1. The digest is that of the pixels, the labels and the weights of the first
stage, so that only shards whose content has changed are computed again. The index has the CRC-32 of every
shard, which is verified when a process opens the shard; see `latent_index`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.atomic_files import write_at
from ldm.data.datasets.flips import EpochFlips
from ldm.data.datasets.latent_index import (
    AGAIN,
    LatentCacheError,
    checksum,
    read_index,
    shard_checksums,
    write_index,
)
from ldm.data.datasets.sharded_dataset import INDEX, ShardedDataset
from ldm.data.images import as_unit, to_uint8

READERS = min(16, os.cpu_count() or 1)  # threads


class CachedLatents(ShardedDataset):
    """Dataset of cached latents.

    Items: `image` uint8 (3, H, W), `labels` uint8 (H, W), `latent` float32 (C, h, w), `name`.

    Args:
        path: Folder written by `write_latents`.
        source: Config of the dataset, which must be the one that the cache was computed from.

    Attributes:
        first_stage: fingerprint of the first stage.
        latent_shape: (C, h, w).

    Raises:
        LatentCacheError: incomplete or damaged cache, or one of another dataset.
    """

    def __init__(self, path: str | Path, source: Mapping[str, Any]) -> None:
        self.path = Path(path)
        index = read_index(self.path)
        source, flips, seed = without_flips(source)
        if index["source"] != source:
            raise LatentCacheError(
                f"{self.path} has the latents of {index['source']}, but the dataset of the config is {source}; {AGAIN}"
            )
        if flips and not index["mirrored"]:
            raise LatentCacheError(f"{self.path} has no latents of flipped images; {AGAIN}")
        self.label_set: Any = index["label_set"]  # LabelSet, or None
        self.first_stage: str = index["first_stage"]
        self.shards: list[str] = index["shards"]
        self._checksums: list[int] = index["checksums"]
        self.starts = np.cumsum([0, *(len(names) for names in index["names"])])
        self.names: list[str] = [name for names in index["names"] for name in names]
        if flips and self.label_set is None:
            raise LatentCacheError(f"{self.path / INDEX} has no label set, which flips need; {AGAIN}")
        self.flips = EpochFlips(seed) if flips else None
        shapes = {
            _latent_shape(self.path / shard, len(names))
            for shard, names in zip(self.shards, index["names"], strict=True)
        }
        if len(shapes) != 1:
            raise LatentCacheError(f"{self.path}: the shards differ in size, or there are none; {AGAIN}")
        (self.latent_shape,) = shapes

    def __getitem__(self, index: int) -> dict[str, Any]:
        index, shard, row = self.locate(index)
        opened = self._opened(shard)
        pixels, labels = opened.get_slice("pixels")[row], opened.get_slice("labels")[row]  # (3, H, W), (H, W)
        flipped = self.flips is not None and self.flips.is_flipped(index)
        latent = opened.get_slice("latents")[row, int(flipped)]  # (C, h, w)
        if flipped:
            pixels, labels = pixels.flip(-1), self.label_set.flip(labels)
        return {"image": pixels, "labels": labels, "latent": latent, "name": self.names[index]}

    def tensors(self) -> dict[str, Tensor]:
        """Return `pixels`, `labels` and `latents` of all items, in the shapes of a shard."""
        shards = [self._opened(number) for number in range(len(self.shards))]
        return {
            name: torch.cat([shard.get_tensor(name) for shard in shards])
            for name in ("pixels", "labels", "latents")
        }

    def _opened(self, shard: int) -> Any:
        return _open(str(self.path / self.shards[shard]), self._checksums[shard])

    def files(self) -> list[Path]:
        """Return the index and the shards."""
        return [self.path / name for name in (INDEX, *self.shards)]


def write_latents(
    path: str | Path,
    dataset: Dataset[dict[str, Any]],
    encode: Callable[[Tensor], Tensor],
    *,
    source: Mapping[str, Any],
    first_stage: str,
    shard_size: int = 256,
    batch_size: int = 8,
) -> int:
    """Write the latent cache of a dataset; shards of an earlier call whose content is unchanged are kept.

    Args:
        path: Folder of the cache.
        dataset: Items without flips: `image` float32 (3, H, W) in [-1, 1], `labels` uint8 (H, W) and `name`.
        encode: Encoder, images (B, 3, H, W) in [-1, 1] to latents (B, C, h, w).
        source: Config of the dataset; with `horizontal_flip`, latents of the flipped images are included.
        first_stage: Fingerprint of the weights of `encode`, see `ldm.checkpoints.fingerprint`.
        shard_size: Images per shard; an interruption loses at most one shard.
        batch_size: Images encoded at once.

    Returns:
        Number of shards that were computed.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    known = shard_checksums(folder)
    (folder / INDEX).unlink(missing_ok=True)  # without an index the cache is incomplete
    config, flips, _ = without_flips(source)
    label_set = getattr(dataset, "label_set", None)
    shards: list[str] = []
    names: list[list[str]] = []
    checksums: list[int] = []
    computed = 0
    length = len(dataset)  # type: ignore[arg-type]
    for start in tqdm(range(0, length, shard_size), desc=str(folder), unit="shard"):
        with ThreadPoolExecutor(READERS) as pool:  # image decoders release the interpreter
            items = list(pool.map(dataset.__getitem__, range(start, min(start + shard_size, length))))
        pixels = torch.stack([_pixels(item["image"]) for item in items])  # (N, 3, H, W)
        labels = torch.stack([item["labels"] for item in items])  # (N, H, W)
        shard = folder / f"{len(shards):05d}-{_digest(first_stage, flips, pixels, labels)}.safetensors"
        found = checksum(shard) if shard.is_file() else None
        if found is None or found != known.get(shard.name, found):  # missing, or damaged since it was written
            latents = _encode(pixels, encode, flips, batch_size)
            _save(shard, {"pixels": pixels, "labels": labels, "latents": latents})
            found = checksum(shard)
            computed += 1
        shards.append(shard.name)
        checksums.append(found)
        names.append([item["name"] for item in items])
    facts = {"source": config, "mirrored": flips, "first_stage": first_stage}
    saved = label_set and asdict(label_set)
    write_index(
        folder, {**facts, "label_set": saved, "shards": shards, "names": names, "checksums": checksums}
    )
    _remove_stale(folder, shards)
    return computed


def without_flips(source: Mapping[str, Any]) -> tuple[dict[str, Any], bool, int]:
    """Return the config of a dataset without flips, whether it had flips, and their seed."""
    params = dict(source.get("params") or {})
    flips = bool(params.pop("horizontal_flip", False))
    return {**source, "params": params}, flips, int(params.get("seed", 0))


def _save(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a file atomically."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_at(file, lambda partial: save_file(tensors, partial), size)


def _remove_stale(folder: Path, shards: Sequence[str]) -> None:
    """Delete the shards that are not listed."""
    kept = set(shards)
    for file in folder.glob("[0-9][0-9][0-9][0-9][0-9]-*.safetensors"):
        if file.name not in kept:
            file.unlink()


def _encode(pixels: Tensor, encode: Callable[[Tensor], Tensor], flips: bool, batch_size: int) -> Tensor:
    """Return the latents (N, F, C, h, w) of uint8 pixels (N, 3, H, W)."""
    views = [pixels, pixels.flip(-1)] if flips else [pixels]
    with torch.no_grad():
        latents = [
            torch.cat([encode(as_unit(part)).float().cpu() for part in view.split(batch_size)])
            for view in views
        ]  # F times (N, C, h, w)
    return torch.stack(latents, 1).contiguous()


def _pixels(image: Tensor) -> Tensor:
    """Return uint8 (3, H, W)."""
    return torch.from_numpy(to_uint8(image).transpose(2, 0, 1).copy())


def _digest(first_stage: str, flips: bool, *tensors: Tensor) -> str:
    digest = hashlib.sha256(f"{first_stage} {flips}".encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _latent_shape(file: Path, count: int) -> tuple[int, int, int]:
    """Return (C, h, w) of the latents in a shard of `count` items, from its header only.

    Raises:
        LatentCacheError: missing, damaged, or tensors of other shapes or types.
    """
    if not file.is_file():
        raise LatentCacheError(f"{file} is missing; {AGAIN}")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            parts = {name: opened.get_slice(name) for name in ("pixels", "labels", "latents")}
            shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
            types = [part.get_dtype() for part in parts.values()]
    except (OSError, safetensors.SafetensorError) as error:
        raise LatentCacheError(f"{file} is damaged ({error}); {AGAIN}") from error
    pixels, latents = shapes["pixels"], shapes["latents"]
    valid = (
        types == ["U8", "U8", "F32"]
        and (len(latents) == 5 and latents[0] == count and latents[1] in (1, 2))
        and pixels[:2] == (count, 3)
        and shapes["labels"] == (count, *pixels[2:])
    )
    if not valid:
        raise LatentCacheError(
            f"{file} has {', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}, expected pixels "
            f"[{count}, 3, H, W], labels [{count}, H, W] and latents [{count}, 1 or 2, C, h, w]; {AGAIN}"
        )
    return latents[2], latents[3], latents[4]


@lru_cache(maxsize=64)
def _open(file: str, expected: int) -> Any:
    """Verify and memory-map a shard, once per process.

    Raises:
        LatentCacheError: the file was changed or damaged.
    """
    if checksum(Path(file)) != expected:
        raise LatentCacheError(f"{file} is damaged: its checksum does not match; {AGAIN}")
    return safetensors.safe_open(file, framework="pt").__enter__()
