"""Check where results go before they are computed: inputs are never replaced, and the folder can take them."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

MAX_NAME_BYTES = 255  # bytes, of the file systems in use


class OutputError(ValueError):
    """Results cannot be written where they should go; the message names the file and what to do."""


def check_outputs(files: Sequence[Path], inputs: Iterable[Path], size: int = 0) -> None:
    """Check that files can be written and that none of them is an input; creates nothing that stays.

    Args:
        files: what will be written; their folders need not exist.
        inputs: what is read. Those that do not exist are ignored.
        size: bytes that the files need at least.

    Raises:
        OutputError: a file is an input, also by a link; a folder cannot be written to; or the disk lacks
            room.
    """
    read = {identity: path for path in inputs if (identity := _identity(path)) is not None}
    for file in files:
        if len(os.fsencode(file.name)) > MAX_NAME_BYTES:
            raise OutputError(
                f"{file.name[:40]}... has {len(os.fsencode(file.name))} bytes, a file's name at most "
                f"{MAX_NAME_BYTES}; rename the input"
            )
        if (identity := _identity(file)) in read:
            raise OutputError(
                f"{file} would replace {read[identity]}, which this command reads; choose another output"
            )
        if file.is_dir():
            raise OutputError(f"{file} is a folder, expected a name for a file; choose another output")
    for folder in sorted({file.parent for file in files}):
        _check_folder(folder, size)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from all others, None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_folder(folder: Path, size: int) -> None:
    there = folder
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise OutputError(f"{folder}: {there} is a file, expected a folder; choose another output")
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to: {error.strerror}; choose another output"
        ) from error
    if size > free:
        raise OutputError(
            f"{folder}: the results need at least {size:,} bytes, {free:,} are free; choose another output"
        )
