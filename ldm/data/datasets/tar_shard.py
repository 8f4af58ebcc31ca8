"""One tar file of pictures and label maps, read at any place without its neighbours."""

import io
import os
import tarfile
from functools import lru_cache
from pathlib import Path

IMAGE_SUFFIXES = ("jpg", "jpeg", "png")  # of a picture's member: NAME.jpg
LABELS_SUFFIX = "labels.png"  # NAME.labels.png


class ShardError(ValueError):
    """A shard cannot be used; the message names it, and the member where it is one."""


class Member(io.BytesIO):
    """The content of one member, which error messages call by shard and name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._title = name

    def __str__(self) -> str:
        return self._title


class TarShard:
    """The pictures of one shard, by number.

    Args:
        path: the tar file, uncompressed.
        pictures: how many it has to hold.

    Raises:
        ShardError: it is damaged or holds another number.
    """

    def __init__(self, path: Path, pictures: int) -> None:
        self.path = path
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        last = "its first member"
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    last = f"what follows {member.name}"
                    name, _, suffix = member.name.partition(
                        "."
                    )  # webdataset's rule: the key ends at the first dot
                    entry = (
                        "labels" if suffix == LABELS_SUFFIX else "image" if suffix in IMAGE_SUFFIXES else None
                    )
                    if member.isfile() and entry:
                        samples.setdefault(name, {})[entry] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            raise ShardError(
                f"{path} is damaged at {last} ({error}); copy it again, or make it anew"
            ) from error
        if len(samples) != pictures:
            raise ShardError(
                f"{path} holds {len(samples)} pictures, its index says {pictures}; copy both again, or make them anew"
            )
        self.names, self._places = list(samples), list(samples.values())
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, row: int, entries: tuple[str, ...]) -> tuple[str, dict[str, Member]]:
        """Return the name of a picture and the contents of its entries, "image" and "labels".

        Raises:
            ShardError: an entry is not there.
        """
        name, places = self.names[row], self._places[row]
        found = {}
        for entry in entries:
            if entry not in places:
                raise ShardError(f"{self.path}: {name} has no {entry}; make the shard anew")
            offset, size = places[entry]
            # Unlike seek and read, this is safe in processes that have inherited the open file.
            found[entry] = Member(os.pread(self._file, size, offset), f"{self.path}: {entry} of {name}")
        return name, found


@lru_cache(maxsize=32)
def open_shard(path: Path, pictures: int) -> TarShard:
    """Open a shard once; each reading process keeps the last ones open."""
    return TarShard(path, pictures)
