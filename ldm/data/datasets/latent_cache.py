"""First-stage latents of a dataset, computed once, beside its pixels: training then never runs the first stage.

A folder of shards, `NNNNN-DIGEST.safetensors`, and `index.json`. A shard holds `pixels` (N, 3, H, W) and `labels`
(N, H, W), uint8, and `latents` (N, F, C, h, w), float32, where F is 2 with the latents of the mirrored pictures. Its
digest is that of its pixels, labels, and the first stage's weights: what changed is computed anew, all else kept.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
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
from ldm.data.datasets.paired_images import EpochFlips
from ldm.data.images import as_unit, to_uint8
from ldm.data.labels import LabelSet

INDEX = "index.json"
INDEX_KEYS: dict[str, Any] = {
    "source": dict,
    "mirrored": bool,
    "first_stage": str,
    "label_set": dict | None,
    "shards": list,
    "names": list,
}
AGAIN = "run scripts/cache_latents.py again"


class LatentCacheError(ValueError):
    """A cache cannot be used; the message says why and how to get one that can."""


class CachedLatents(Dataset[dict[str, Any]]):
    """The items of a cache: `image` uint8 (3, H, W), `labels` uint8 (H, W), `latent` float32 (C, h, w), `name`.

    Args:
        path: the folder that `write_latents` made.
        source: the dataset's config; must be the one that the cache was made of.
        seed: of the flips, as in `PairedImages`.

    Raises:
        LatentCacheError: there is no finished cache, or it is of another dataset.
    """

    def __init__(self, path: str | Path, source: Mapping[str, Any]) -> None:
        self.path = Path(path)
        index = _read_index(self.path)
        source, flips, seed = without_flips(source)
        if index["source"] != source:
            raise LatentCacheError(
                f"{self.path} holds the latents of {index['source']}, but the config's dataset is {source}; "
                "run scripts/cache_latents.py again"
            )
        if flips and not index["mirrored"]:
            raise LatentCacheError(f"{self.path} has no mirrored latents; run scripts/cache_latents.py again")
        found = index["label_set"]
        self.label_set = found and LabelSet(
            found["name"], *(tuple(map(_frozen, found[k])) for k in ("regions", "palette", "mirror"))
        )
        self.first_stage: str = index["first_stage"]
        self.shards: list[str] = index["shards"]
        self.starts = np.cumsum([0, *(len(names) for names in index["names"])])
        self.names: list[str] = [name for names in index["names"] for name in names]
        self.flips = EpochFlips(seed) if flips else None
        shapes = {
            _latent_shape(self.path / shard, len(names))
            for shard, names in zip(self.shards, index["names"], strict=True)
        }
        if len(shapes) != 1:
            raise LatentCacheError(f"{self.path}: its shards differ in size, or there are none; {AGAIN}")
        (self.latent_shape,) = shapes

    def __len__(self) -> int:
        return len(self.names)

    def set_epoch(self, epoch: int) -> None:
        """Choose which items the coming epoch flips; also reaches workers that run already."""
        if self.flips is not None:
            self.flips.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = index - int(self.starts[shard])
        opened = _open(str(self.path / self.shards[shard]))
        pixels, labels = opened.get_slice("pixels")[row], opened.get_slice("labels")[row]
        flipped = self.flips is not None and self.flips.is_flipped(index)
        latent = opened.get_slice("latents")[row, int(flipped)]
        if flipped:
            pixels, labels = pixels.flip(-1), self.label_set.flip(labels)
        return {"image": pixels, "labels": labels, "latent": latent, "name": self.names[index]}


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
    """Write a cache of `dataset`; what an earlier, perhaps interrupted, call has left and still holds is kept.

    Args:
        path: the folder.
        dataset: unflipped items with `image` float32 (3, H, W) in [-1, 1], `labels` and `name`.
        encode: images (B, 3, H, W) in [-1, 1] to latents (B, C, h, w).
        source: the config that the dataset was built from; whether it flips decides about mirrored latents.
        first_stage: name of the weights behind `encode`, see `ldm.checkpoints.fingerprint`.
        shard_size: pictures of one shard, the unit of what an interruption loses.
        batch_size: pictures that are encoded at once.

    Returns:
        how many shards had to be computed.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # until all is there, there is no cache
    lean, flips, _ = without_flips(source)
    shards: list[str] = []
    names: list[list[str]] = []
    computed = 0
    length = len(dataset)  # type: ignore[arg-type]
    for number, start in enumerate(tqdm(range(0, length, shard_size), desc=str(folder), unit="shard")):
        items = [dataset[i] for i in range(start, min(start + shard_size, length))]
        pixels = torch.stack([_pixels(item["image"]) for item in items])
        labels = torch.stack([item["labels"] for item in items])
        shard = folder / f"{number:05d}-{_digest(first_stage, flips, pixels, labels)}.safetensors"
        if not shard.is_file():
            latents = _encode(pixels, encode, flips, batch_size)
            _save(shard, {"pixels": pixels, "labels": labels, "latents": latents})
            computed += 1
        shards.append(shard.name)
        names.append([item["name"] for item in items])
    label_set = getattr(dataset, "label_set", None)
    index = {
        "source": lean,
        "mirrored": flips,
        "first_stage": first_stage,
        "label_set": label_set and asdict(label_set),
        "shards": shards,
        "names": names,
    }
    write_text(folder / INDEX, json.dumps(index))
    for stale in set(folder.glob("[0-9][0-9][0-9][0-9][0-9]-*.safetensors")) - {
        folder / shard for shard in shards
    }:
        stale.unlink()
    return computed


def without_flips(source: Mapping[str, Any]) -> tuple[dict[str, Any], bool, int]:
    """Return a dataset's config without its flips, whether it flips, and the seed of that."""
    params = dict(source.get("params") or {})
    flips = bool(params.pop("horizontal_flip", False))
    return {**source, "params": params}, flips, int(params.get("seed", 0))


def _save(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file that is whole or not there."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_at(file, lambda partial: save_file(tensors, partial), size)


def _encode(pixels: Tensor, encode: Callable[[Tensor], Tensor], flips: bool, batch_size: int) -> Tensor:
    """Return the latents (N, F, C, h, w) of uint8 pixels (N, 3, H, W)."""
    views = [pixels, pixels.flip(-1)] if flips else [pixels]
    with torch.no_grad():
        rows = [
            torch.cat([encode(as_unit(part)).float().cpu() for part in view.split(batch_size)])
            for view in views
        ]
    return torch.stack(rows, 1).contiguous()


def _pixels(image: Tensor) -> Tensor:
    return torch.from_numpy(to_uint8(image).transpose(2, 0, 1).copy())


def _digest(first_stage: str, flips: bool, *tensors: Tensor) -> str:
    digest = hashlib.sha256(f"{first_stage} {flips}".encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _latent_shape(file: Path, count: int) -> tuple[int, int, int]:
    """Return (C, h, w) of the latents in a shard, from its header alone.

    Raises:
        LatentCacheError: it is missing, damaged, or not of `count` pictures with latents.
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
    right = (
        types == ["U8", "U8", "F32"] and len(latents) == 5 and latents[0] == count and latents[1] in (1, 2)
    )
    if not right or pixels[:2] != (count, 3) or shapes["labels"] != (count, *pixels[2:]):
        raise LatentCacheError(
            f"{file} holds {', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}, expected pixels "
            f"[{count}, 3, H, W], labels [{count}, H, W] and latents [{count}, 1 or 2, C, h, w]; {AGAIN}"
        )
    return latents[2], latents[3], latents[4]


def _read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a finished cache.

    Raises:
        LatentCacheError: there is none, or it is not what `write_latents` writes.
    """
    try:
        index = parse_json((folder / INDEX).read_text())
        for key, kind in INDEX_KEYS.items():
            if not isinstance(index[key], kind):
                raise ValueError(f"{key} is {index[key]!r:.40}")
        if len(index["names"]) != len(index["shards"]):
            raise ValueError(f"{len(index['shards'])} shards, but names of {len(index['names'])}")
        return index
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise LatentCacheError(f"{folder / INDEX} is damaged ({reason}); {AGAIN}") from error
    except FileNotFoundError:
        raise LatentCacheError(
            f"{folder} holds no finished cache of latents; make one by scripts/cache_latents.py, which also goes "
            "on with one that was interrupted"
        ) from None


@lru_cache(maxsize=64)
def _open(file: str) -> Any:
    """Map a shard into memory; each reading process keeps its own."""
    return safetensors.safe_open(file, framework="pt").__enter__()


def _frozen(value: Sequence[int] | str | int) -> Any:
    return tuple(value) if isinstance(value, list) else value
