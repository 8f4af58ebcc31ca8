"""Files behind http(s) and file URLs, fetched in this process: no other scheme, no program is started."""

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
CHUNK = 2**20


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follow redirects from http(s) to http(s) alone: not to a file of this machine."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not http(s)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_url(path: str) -> bool:
    """Tell whether a path has a scheme, as in https://HOST/faces or pipe:COMMAND."""
    return ":" in path.partition("/")[0]


def check_url(url: str) -> None:
    """Raise ConfigError unless the scheme is http, https or file."""
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES or not url[len(scheme) :].startswith("://"):
        raise ConfigError(
            f"path is {url!r}; only {', '.join(f'{name}://' for name in SCHEMES)} are fetched, since other schemes, "
            "such as pipe:, start programs. Copy the shards to a folder, and name that"
        )


def fetch_text(url: str, limit: int) -> str:
    """Return the text behind a URL.

    Raises:
        OSError: it cannot be fetched. ValueError: more than `limit` bytes, or not UTF-8.
    """
    with _opened(url) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return content.decode()


def fetch_file(url: str, file: Path, size: int) -> None:
    """Copy what is behind a URL to `file`, which is there whole or not at all.

    Raises:
        OSError: it cannot be fetched or written. ValueError: it has another size.
    """

    def copy(written: BinaryIO) -> None:
        with _opened(url) as stream:
            while written.tell() <= size and (block := stream.read(CHUNK)):
                written.write(block)
        if (found := written.tell()) != size:
            more = "more than " if found > size else ""
            raise ValueError(f"{more}{found:,} bytes; its index says {size:,}")

    write_file(file, copy, size)


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    check_url(url)
    with urllib.request.build_opener(_SameSchemes).open(url, timeout=TIMEOUT) as stream:
        yield stream
