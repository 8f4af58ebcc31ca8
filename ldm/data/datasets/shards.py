"""Pictures and label maps in tar files of some thousand each, the format of the webdataset library: `ShardedFaces`.

A folder of a billion small files takes a file system long to list and longer to copy; a tar of a thousand pairs is read
from end to end. `scripts/make_shards.py` writes them with an index of how many pictures each holds, which is enough
to know the order of every epoch without opening one. So an epoch's order stays what it is for folders: a function of
(seed, epoch), dealt in turns to any number of processes, and a run resumes anywhere in it.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ldm.checkpoints.config_files import parse_json
from ldm.data.datasets.download import check_url, fetch_file, fetch_text, is_url
from ldm.data.datasets.paired_images import EpochFlips, flip, load_entries, wanted_keys
from ldm.data.datasets.tar_shard import ShardError, open_shard
from ldm.data.images import Size, as_size
from ldm.data.labels import LABEL_SETS, LabelSet
from ldm.targets import ConfigError

INDEX = "index.json"
MAX_INDEX = 2**28  # bytes
FILE_NAME = re.compile(r"\w[\w.-]*\.tar")  # of a shard in its folder: no path, no scheme, nothing for a shell


@dataclass(frozen=True)
class ShardIndex:
    """What `index.json` says.

    Attributes:
        label_set: what the labels mean.
        files: the shards' names.
        pictures: how many each holds.
        bytes: how large each is.
    """

    label_set: LabelSet
    files: tuple[str, ...]
    pictures: tuple[int, ...]
    bytes: tuple[int, ...]

    def to_json(self) -> str:
        """Return the text of the file."""
        rows = zip(self.files, self.pictures, self.bytes, strict=True)
        shards = [{"file": file, "pictures": count, "bytes": size} for file, count, size in rows]
        return json.dumps({"label_set": self.label_set.name, "shards": shards}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "ShardIndex":
        """Read the text of the file `where`.

        Raises:
            ShardError: it is damaged, or names a label set that does not exist.
        """
        try:
            found = parse_json(text)
            rows = [_checked_row(shard) for shard in found["shards"]]
            return cls(LABEL_SETS[found["label_set"]], *zip(*rows, strict=True))
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(
                f"{where} is no index of shards ({error!r}); scripts/make_shards.py makes it"
            ) from error


def _checked_row(shard: Any) -> tuple[str, int, int]:
    """Return the file, pictures and bytes of a shard as its index has them; raise ValueError where they cannot be."""
    file, count, size = shard["file"], shard["pictures"], shard["bytes"]
    if not isinstance(file, str) or not FILE_NAME.fullmatch(file):
        raise ValueError(f"a shard is called {file!r:.80}, expected NAME.tar")
    if type(count) is not int or type(size) is not int or not 0 < count <= size:
        raise ValueError(f"{file} has {count!r:.40} pictures in {size!r:.40} bytes")
    return file, count, size


class ShardedFaces(Dataset[dict[str, Any]]):
    """The items of `PairedImages`, from shards that `scripts/make_shards.py` has written.

    Args:
        path: their folder, or its URL: https://HOST/faces, http:// or file://; no scheme that starts a program.
        size: Size of the items, an int or [H, W].
        keys: The entries to load, by a name in `paired_images.KEYS`; None loads all.
        horizontal_flip: Flip each item left to right with probability 1/2; left and right regions swap labels.
        seed: The flips are a function of (seed, epoch, index).
        streams: shards that are read side by side in training, a picture from each in turn. Where it is a multiple of
            the processes, each of them reads shards of its own.
        cache: the folder, on a disk of this machine, that keeps shards which come from a URL.

    Raises:
        ShardError: there is no index, or a shard is missing or not as long as the index says.
        ConfigError: a URL without `cache`, or with another scheme.
        ValueError: a wrong size, key, or number of streams.
    """

    def __init__(
        self,
        path: str,
        size: Size,
        keys: Sequence[str] | None = None,
        horizontal_flip: bool = False,
        seed: int = 0,
        streams: int = 8,
        cache: str | None = None,
    ) -> None:
        if not isinstance(streams, int) or streams < 1:
            raise ValueError(f"streams is {streams!r}; wanted a whole number, at least 1")
        self.path, self.size, self.streams = path.rstrip("/"), as_size(size), streams
        self.keys = wanted_keys(keys)
        self.remote = is_url(self.path)
        if self.remote:
            check_url(self.path)
        if self.remote and cache is None:
            raise ConfigError(f"path is {path}; give `cache`, a folder on a disk of this machine, too")
        self.cache = None if cache is None else Path(cache).expanduser()
        self.index = self._read_index()
        self.label_set = self.index.label_set
        self.starts = np.cumsum([0, *self.index.pictures])
        self.flips = EpochFlips(seed) if horizontal_flip else None
        if not self.remote:
            for number in range(len(self.index.files)):
                self._check_size(number, Path(self.path).expanduser() / self.index.files[number])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        shard = open_shard(self._local(number), self.index.pictures[number])
        name, sources = shard.read(index - int(self.starts[number]), self.keys)
        item = load_entries(sources.get("image"), sources.get("labels"), self.label_set, self.size)
        if self.flips is not None and self.flips.is_flipped(index):
            flip(item, self.label_set)
        return {**item, "name": name}

    def set_epoch(self, epoch: int) -> None:
        """Choose which items the coming epoch flips; also reaches workers that run already."""
        if self.flips is not None:
            self.flips.set_epoch(epoch)

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """Return an order of all indices in which `streams` shards at a time are read to their end.

        Shards in random order, the pictures of each in random order; this sequence is cut into equal streams, which
        take turns: position p of the result is of stream p modulo `streams`.
        """
        shards = rng.permutation(len(self.index.files))
        sequence = np.concatenate(
            [self.starts[shard] + rng.permutation(self.index.pictures[shard]) for shard in shards]
        )
        streams = np.array_split(sequence, self.streams)  # the first ones are longer, by one, if any
        turns = np.full((len(streams[0]), self.streams), -1)
        for number, stream in enumerate(streams):
            turns[: len(stream), number] = stream
        return turns[turns >= 0]

    def _read_index(self) -> ShardIndex:
        where = f"{self.path}/{INDEX}"
        try:
            text = (
                fetch_text(where, MAX_INDEX)
                if self.remote
                else (Path(self.path).expanduser() / INDEX).read_text()
            )
        except (OSError, ValueError) as error:
            raise ShardError(f"{where} cannot be read ({error}); scripts/make_shards.py makes it") from error
        return ShardIndex.from_json(text, where)

    def _local(self, number: int) -> Path:
        """Return the file of a shard, fetched first where it is not on this machine."""
        if not self.remote:
            return Path(self.path).expanduser() / self.index.files[number]
        assert self.cache is not None
        url = f"{self.path}/{self.index.files[number]}"
        file = self.cache / _cache_name(url)
        if not (file.is_file() and file.stat().st_size == self.index.bytes[number]):
            try:
                fetch_file(url, file, self.index.bytes[number])
            except (OSError, ValueError, HTTPException) as error:
                raise ShardError(f"{url} cannot be fetched ({error})") from error
        return file

    def _check_size(self, number: int, file: Path) -> None:
        wanted = self.index.bytes[number]
        found = file.stat().st_size if file.is_file() else None
        if found != wanted:
            state = "is missing" if found is None else f"has {found:,} bytes; its index says {wanted:,}"
            raise ShardError(f"{file} {state}; copy it again, or make the shards anew")


def _cache_name(url: str) -> str:
    """Return a name for a URL's file: two datasets may have shards of the same name."""
    return f"{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}-{url.rpartition('/')[2]}"
