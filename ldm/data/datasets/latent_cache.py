"""First-stage latents of a dataset, computed once, so that training does not run the first stage.

A cache is a folder of shards, `NNNNN-DIGEST.safetensors`, and `index.json`. A shard holds `pixels` (N, 3, H, W) and
`labels` (N, H, W), uint8, and `latents` (N, F, C, h, w), float32; F is 2 if the latents of the flipped images are
included, otherwise 1. The digest is that of the pixels, the labels and the weights of the first stage, so that only
shards whose content has changed are computed again. The index has the CRC-32 of every shard, which is verified when a
process opens the shard, and its own.
"""

import hashlib
import json
import os
import re
import zlib
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

from ldm.atomic_files import write_at, write_text
from ldm.checkpoints.config_files import parse_json
from ldm.data.datasets.flips import EpochFlips
from ldm.data.datasets.sharded_dataset import INDEX, ShardedDataset
from ldm.data.images import as_unit, to_uint8
from ldm.data.labels import LabelSet

INDEX_KEYS: dict[str, Any] = {
    "source": dict,
    "mirrored": bool,
    "first_stage": str,
    "label_set": dict | None,
    "shards": list,
    "names": list,
    "checksums": list,
    "checksum": int,
}
SHARD_NAME = re.compile(r"\w[\w.-]*\.safetensors")  # no path: an index cannot name files elsewhere
AGAIN = "run scripts/cache_latents.py again"
READERS = min(16, os.cpu_count() or 1)  # threads


class LatentCacheError(ValueError):
    """A latent cache is unusable; the message says why and what to do."""


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
        index = _read_index(self.path)
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
        if not shard.is_file():
            latents = _encode(pixels, encode, flips, batch_size)
            _save(shard, {"pixels": pixels, "labels": labels, "latents": latents})
            computed += 1
        shards.append(shard.name)
        checksums.append(_checksum(shard))
        names.append([item["name"] for item in items])
    index = {
        "source": config,
        "mirrored": flips,
        "first_stage": first_stage,
        "label_set": label_set and asdict(label_set),
        "shards": shards,
        "names": names,
        "checksums": checksums,
    }
    write_text(folder / INDEX, json.dumps({**index, "checksum": _index_checksum(index)}))
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


def _read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a complete cache.

    Raises:
        LatentCacheError: no index, or a damaged one.
    """
    try:
        index = parse_json((folder / INDEX).read_text())
        for key, kind in INDEX_KEYS.items():
            if not isinstance(index[key], kind):
                raise ValueError(f"{key} is {index[key]!r:.40}")
        if not len(index["names"]) == len(index["shards"]) == len(index["checksums"]):
            raise ValueError("shards, names and checksums differ in number")
        for shard in index["shards"]:
            if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
                raise ValueError(f"shards has {shard!r:.40}, expected NAME.safetensors")
        for names in index["names"]:
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"names has {names!r:.40}, expected a list of strings for each shard")
        if index.pop("checksum") != _index_checksum(index):
            raise ValueError("its checksum does not match")
        return {**index, "label_set": index["label_set"] and _label_set(index["label_set"])}
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise LatentCacheError(f"{folder / INDEX} is damaged ({reason}); {AGAIN}") from error
    except FileNotFoundError:
        raise LatentCacheError(
            f"{folder} has no complete latent cache; run scripts/cache_latents.py, which also continues an "
            "interrupted one"
        ) from None


@lru_cache(maxsize=64)
def _open(file: str, checksum: int) -> Any:
    """Verify and memory-map a shard, once per process.

    Raises:
        LatentCacheError: the file was changed or damaged.
    """
    if _checksum(Path(file)) != checksum:
        raise LatentCacheError(f"{file} is damaged: its checksum does not match; delete it, then {AGAIN}")
    return safetensors.safe_open(file, framework="pt").__enter__()


def _label_set(saved: Mapping[str, Any]) -> LabelSet:
    """Return the label set of an index; raise ValueError, KeyError or TypeError if it is not one."""
    names, palette, mirror = saved["regions"], saved["palette"], saved["mirror"]
    if not all(isinstance(name, str) for name in (saved["name"], *names)):
        raise ValueError("a name in label_set is not a string")
    if not all(type(number) is int for number in (*mirror, *(part for colour in palette for part in colour))):
        raise ValueError("a number in label_set.palette or label_set.mirror is not an integer")
    return LabelSet(saved["name"], tuple(names), tuple(map(tuple, palette)), tuple(mirror))


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            found = zlib.crc32(chunk, found)
    return found


def _index_checksum(index: Mapping[str, Any]) -> int:
    """Return the CRC-32 of an index without its checksum."""
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())
