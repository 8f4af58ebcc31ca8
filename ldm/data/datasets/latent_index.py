"""The index of a latent cache: which shards it has, of what, and their checksums."""

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.atomic_files import write_text
from ldm.checkpoints.config_files import parse_json
from ldm.data.datasets.sharded_dataset import INDEX
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


class LatentCacheError(ValueError):
    """A latent cache is unusable; the message says why and what to do."""


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write the index with its own checksum, atomically; until then the cache is incomplete."""
    write_text(folder / INDEX, json.dumps({**index, "checksum": _index_checksum(index)}))


def read_index(folder: Path) -> dict[str, Any]:
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


def shard_checksums(folder: Path) -> dict[str, int]:
    """Return the checksums of the shards in an earlier index by name; empty if there is none that can be used."""
    try:
        index = read_index(folder)
    except LatentCacheError:
        return {}
    return dict(zip(index["shards"], index["checksums"], strict=True))


def _label_set(saved: Mapping[str, Any]) -> LabelSet:
    """Return the label set of an index; raise ValueError, KeyError or TypeError if it is not one."""
    names, palette, mirror = saved["regions"], saved["palette"], saved["mirror"]
    if not all(isinstance(name, str) for name in (saved["name"], *names)):
        raise ValueError("a name in label_set is not a string")
    if not all(type(number) is int for number in (*mirror, *(part for color in palette for part in color))):
        raise ValueError("a number in label_set.palette or label_set.mirror is not an integer")
    try:
        return LabelSet(saved["name"], tuple(names), tuple(map(tuple, palette)), tuple(mirror))
    except ValueError as error:
        raise ValueError(f"label_set: {error}") from error


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            found = zlib.crc32(chunk, found)
    return found


def _index_checksum(index: Mapping[str, Any]) -> int:
    """Return the CRC-32 of an index without its checksum."""
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())
