"""Images and label maps in tar shards, the format of the webdataset library, local or remote: `ShardedFaces`.

Shards of about a thousand samples are faster to copy and to read than many small files.
`scripts/make_shards.py` writes them with an index of their sizes. The order of an epoch follows from the
index: as for folders, it is a function of (seed, epoch) for any number of processes, and training resumes at
any batch.
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

from ldm.checkpoints.config_files import parse_json
from ldm.data.datasets.download import check_url, fetch_file, fetch_text, is_url
from ldm.data.datasets.flips import EpochFlips, flip
from ldm.data.datasets.paired_images import load_entries, sample_entries
from ldm.data.datasets.sharded_dataset import INDEX, ShardedDataset
from ldm.data.datasets.tar_shard import ShardError, open_shard
from ldm.data.images import Size, as_size
from ldm.data.labels import LABEL_SETS, LabelSet
from ldm.targets import ConfigError

MAX_INDEX = 2**28  # bytes
FILE_NAME = re.compile(r"\w[\w.-]*\.tar")  # of a shard: no path, no scheme, no shell syntax


@dataclass(frozen=True)
class ShardIndex:
    """Content of `index.json`.

    Attributes:
        label_set: label set of the label maps.
        files: names of the shards.
        counts: number of samples of each shard.
        bytes: size of each shard.
    """

    label_set: LabelSet
    files: tuple[str, ...]
    counts: tuple[int, ...]
    bytes: tuple[int, ...]

    def to_json(self) -> str:
        """Return the content as JSON."""
        rows = zip(self.files, self.counts, self.bytes, strict=True)
        shards = [{"file": file, "pictures": count, "bytes": size} for file, count, size in rows]
        return json.dumps({"label_set": self.label_set.name, "shards": shards}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, path: str) -> "ShardIndex":
        """Parse the text of the file `path`.

        Raises:
            ShardError: invalid, or an unknown label set.
        """
        try:
            found = parse_json(text)
            rows = [_checked_row(shard) for shard in found["shards"]]
            return cls(LABEL_SETS[found["label_set"]], *zip(*rows, strict=True))
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(
                f"{path} is no index of shards ({error!r:.200}); write it with scripts/make_shards.py"
            ) from error


def _checked_row(shard: Any) -> tuple[str, int, int]:
    """Return the file, number of samples and bytes of an entry of the index; raise ValueError if it is invalid."""
    file, count, size = shard["file"], shard["pictures"], shard["bytes"]
    if not isinstance(file, str) or not FILE_NAME.fullmatch(file):
        raise ValueError(f"a shard has the name {file!r:.80}, expected NAME.tar")
    if type(count) is not int or type(size) is not int or not 0 < count <= size:
        raise ValueError(f"{file} cannot have {count!r:.40} samples in {size!r:.40} bytes")
    return file, count, size


class ShardedFaces(ShardedDataset):
    """Images with label maps from shards written by `scripts/make_shards.py`. Items as in `PairedImages`.

    Args:
        path: Folder of the shards, or its URL: https://HOST/faces, http:// or file://.
        size: Size of the items, an int or [H, W].
        keys: Entries to load, by their names in `paired_images.KEYS`; None loads all.
        horizontal_flip: Flip each item with probability 1/2; left and right regions swap labels.
        seed: Seed of the flips, which are a function of (seed, epoch, index).
        streams: Number of shards that training reads in parallel, one sample of each in turn. With a multiple
            of the number of processes, each process reads different shards.
        cache: Local folder for shards that are downloaded from a URL.

    Raises:
        ShardError: no index, or a shard that is missing or has another size than in the index.
        ConfigError: a URL without `cache`, or with another scheme.
        ValueError: invalid size, key, or number of streams.
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
            raise ValueError(f"streams must be an integer of at least 1, got {streams!r}")
        self.path, self.size, self.streams = path.rstrip("/"), as_size(size), streams
        self.keys = sample_entries(keys)
        self.remote = is_url(self.path)
        if self.remote:
            check_url(self.path)
        if self.remote and cache is None:
            raise ConfigError(
                f"path is the URL {path}; set `cache`, a local folder for the downloaded shards"
            )
        self.cache = None if cache is None else Path(cache).expanduser()
        self.index = self._read_index()
        self.label_set = self.index.label_set
        self.starts = np.cumsum([0, *self.index.counts])
        self.flips = EpochFlips(seed) if horizontal_flip else None
        if not self.remote:
            for number in range(len(self.index.files)):
                self._check_size(number, Path(self.path).expanduser() / self.index.files[number])

    def __getitem__(self, index: int) -> dict[str, Any]:
        index, number, row = self.locate(index)
        shard = open_shard(self._local(number), self.index.counts[number])
        name, sources = shard.read(row, self.keys)
        item = load_entries(sources.get("image"), sources.get("labels"), self.label_set, self.size)
        if self.flips is not None and self.flips.is_flipped(index):
            flip(item, self.label_set)
        return {**item, "name": name}

    def files(self) -> list[Path]:
        """Return the local index and shards; nothing for a URL."""
        folder = Path(self.path).expanduser()
        return [] if self.remote else [folder / name for name in (INDEX, *self.index.files)]

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random order (N,) of all indices that reads `streams` shards at a time.

        The shards and the samples within each are shuffled; the sequence is split into `streams` equal
        streams, which are interleaved: position p belongs to stream p modulo `streams`.
        """
        shards = rng.permutation(len(self.index.files))
        sequence = np.concatenate(
            [self.starts[shard] + rng.permutation(self.index.counts[shard]) for shard in shards]
        )
        streams = np.array_split(sequence, self.streams)  # the first ones may be longer by one
        interleaved = np.full((len(streams[0]), self.streams), -1)
        for number, stream in enumerate(streams):
            interleaved[: len(stream), number] = stream
        return interleaved[interleaved >= 0]

    def _read_index(self) -> ShardIndex:
        path = f"{self.path}/{INDEX}"
        try:
            text = (
                fetch_text(path, MAX_INDEX)
                if self.remote
                else (Path(self.path).expanduser() / INDEX).read_text()
            )
        except (OSError, ValueError) as error:
            raise ShardError(
                f"{path} cannot be read ({error}); write it with scripts/make_shards.py"
            ) from error
        return ShardIndex.from_json(text, path)

    def _local(self, number: int) -> Path:
        """Return the local file of a shard; downloads it if necessary."""
        if not self.remote:
            return Path(self.path).expanduser() / self.index.files[number]
        assert self.cache is not None
        url = f"{self.path}/{self.index.files[number]}"
        file = self.cache / _cache_name(url)
        if not (file.is_file() and file.stat().st_size == self.index.bytes[number]):
            try:
                fetch_file(url, file, self.index.bytes[number])
            except (OSError, ValueError, HTTPException) as error:
                raise ShardError(f"{url} cannot be downloaded ({error})") from error
        return file

    def _check_size(self, number: int, file: Path) -> None:
        expected = self.index.bytes[number]
        found = file.stat().st_size if file.is_file() else None
        if found != expected:
            state = (
                "is missing" if found is None else f"has {found:,} bytes, expected {expected:,} by the index"
            )
            raise ShardError(f"{file} {state}; copy or write the shards again")


def _cache_name(url: str) -> str:
    """Return the file name of a cached URL, which is unique for shards of the same name in several datasets."""
    return f"{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}-{url.rpartition('/')[2]}"
