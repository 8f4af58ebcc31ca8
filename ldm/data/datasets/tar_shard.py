"""Random access to the images and label maps in a tar file."""

import io
import os
import tarfile
import weakref
from functools import lru_cache
from pathlib import Path

IMAGE_SUFFIXES = ("jpg", "jpeg", "png")  # of image members: NAME.jpg
LABELS_SUFFIX = "labels.png"  # of label map members: NAME.labels.png


class ShardError(ValueError):
    """A shard is unusable; the message names the file and, if known, the member."""


class Member(io.BytesIO):
    """Content of a tar member; its `str` is the name in error messages."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._title = name

    def __str__(self) -> str:
        return self._title


class TarShard:
    """Samples of a shard, by row.

    Args:
        path: Uncompressed tar file.
        count: Expected number of samples.

    Raises:
        ShardError: damaged, or another number of samples.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        place = "its first member"
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    place = f"the member after {member.name}"
                    name, _, suffix = member.name.partition(
                        "."
                    )  # as in webdataset, the name ends at the first dot
                    entry = (
                        "labels" if suffix == LABELS_SUFFIX else "image" if suffix in IMAGE_SUFFIXES else None
                    )
                    if member.isfile() and entry:
                        samples.setdefault(name, {})[entry] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            raise ShardError(
                f"{path} is damaged at {place} ({error}); copy or write the shards again"
            ) from error
        if len(samples) != count:
            raise ShardError(
                f"{path} has {len(samples)} images, expected {count} by the index; copy or write the shards again"
            )
        self.names, self._members = list(samples), list(samples.values())  # members: entry -> (offset, bytes)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)  # __del__ may run when `os` is gone

    def read(self, row: int, entries: tuple[str, ...]) -> tuple[str, dict[str, Member]]:
        """Return the name of a sample and the content of its entries ("image", "labels").

        Raises:
            ShardError: the sample lacks an entry.
        """
        name, members = self.names[row], self._members[row]
        found = {}
        for entry in entries:
            if entry not in members:
                raise ShardError(f"{self.path}: {name} has no {entry}; write the shards again")
            offset, size = members[entry]
            # Unlike seek and read, pread is safe in processes that share the file descriptor.
            found[entry] = Member(os.pread(self._file, size, offset), f"{self.path}: {entry} of {name}")
        return name, found


@lru_cache(maxsize=32)
def open_shard(path: Path, count: int) -> TarShard:
    """Open a shard; each process keeps the most recent ones open."""
    return TarShard(path, count)
