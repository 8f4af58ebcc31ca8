"""Write files that are complete or absent, and say what the disk lacks where they cannot be written."""

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"  # ends the name of a file that is still being written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (
    *_FULL,
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
)


class WriteError(OSError):
    """A file cannot be written; the message names it and says why."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)

    def __str__(self) -> str:
        return str(self.args[1])


def write_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], object], size: int = 0) -> None:
    """Let `write` fill an open file beside `path`, then move it there; see `write_at`."""

    def fill(partial: Path) -> None:
        with open(partial, "wb") as file:
            write(file)

    write_at(path, fill, size)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a text file, as UTF-8; see `write_at`."""
    write_file(path, lambda file: file.write(text.encode()))


def write_at(path: str | os.PathLike[str], write: Callable[[Path], object], size: int = 0) -> None:
    """Let `write` fill a file at a path beside `path`, then move it there; a failure leaves the old file alone.

    Args:
        path: the file; missing folders are made.
        write: gets the path to write to.
        size: bytes that the file needs about; 0 where that is not known.

    Raises:
        WriteError: the disk is full or refuses; nothing is left of the attempt.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if size > (free := shutil.disk_usage(target.parent).free):
            raise OSError(errno.ENOSPC, f"it needs {size:,} bytes, {free:,} are free")
        partial.touch()
        mode = partial.stat().st_mode  # of a new file under the user's umask
        write(partial)
        partial.chmod(mode)  # safetensors leaves a file that only its owner can read
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)
    except Exception as error:
        if (cause := refusal(error)) is None:
            raise
        raise WriteError(cause.errno or errno.EIO, _explain(target, partial, cause, size)) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def refusal(error: BaseException | None) -> OSError | None:
    """Return the disk's refusal behind an error, also one of a library that wrote; None where there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        if type(error).__name__ == "SafetensorError":  # of Rust, which keeps the number in its text alone
            for number in _REFUSALS:
                if f"os error {number})" in str(error):
                    return OSError(number, os.strerror(number))
        error = error.__cause__ or error.__context__
    return None


def _explain(target: Path, partial: Path, cause: OSError, size: int) -> str:
    reason = cause.strerror or str(cause)
    if cause.errno not in _FULL or "are free" in reason:
        return f"{target}: cannot be written: {reason}"
    written = partial.stat().st_size if partial.exists() else 0
    of = f" of about {size:,}" if size else ""
    free = shutil.disk_usage(target.parent).free
    return f"{target}: cannot be written: {reason}; {written:,} bytes{of} were written, {free:,} are free"
