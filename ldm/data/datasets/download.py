"""Download files from http(s) and file URLs, within this process; no other scheme, which could start a program."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ldm.atomic_files import write_file
from ldm.targets import ConfigError

SCHEMES = ("http", "https", "file")
TIMEOUT = 60  # seconds without a byte
CHUNK = 2**20  # bytes


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http(s) URLs only, not to local files."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not http(s)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_url(path: str) -> bool:
    """Return whether a path has a scheme, as in https://HOST/faces or pipe:COMMAND."""
    return ":" in path.partition("/")[0]


def check_url(url: str) -> None:
    """Raise ConfigError unless the scheme is http, https or file."""
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES or not url[len(scheme) :].startswith("://"):
        raise ConfigError(
            f"path is {url!r}, but only {', '.join(f'{name}://' for name in SCHEMES)} are fetched: other schemes, such "
            "as pipe:, could start programs. Copy the shards to a folder"
        )


def fetch_text(url: str, limit: int) -> str:
    """Download a text.

    Raises:
        OSError: the download failed. ValueError: more than `limit` bytes, or not UTF-8.
    """
    with _opened(url) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return content.decode()


def fetch_file(url: str, file: Path, size: int) -> None:
    """Download a file of `size` bytes to `file`, atomically.

    Raises:
        OSError: downloading or writing failed. ValueError: another size.
    """

    def copy(written: BinaryIO) -> None:
        with _opened(url) as stream:
            while written.tell() <= size and (block := stream.read(CHUNK)):
                written.write(block)
        if (found := written.tell()) != size:
            more = "more than " if found > size else ""
            raise ValueError(f"it has {more}{found:,} bytes, expected {size:,} by the index")

    write_file(file, copy, size)


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    check_url(url)
    with urllib.request.build_opener(_SameSchemes).open(url, timeout=TIMEOUT) as stream:
        yield stream
