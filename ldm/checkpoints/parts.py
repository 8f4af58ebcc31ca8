"""Weights in parts, for places that limit the size of a file."""

import shutil
from pathlib import Path

WEIGHTS = "model.safetensors"
PARTS = f"{WEIGHTS}.[0-9][0-9][0-9]"


def split_file(path: Path, size: int) -> list[Path]:
    """Replace a file by parts of at most `size` bytes, NAME.000, NAME.001 and so on, and return their paths."""
    parts: list[Path] = []
    with path.open("rb") as file:
        while chunk := file.read(size):
            parts.append(path.with_name(f"{path.name}.{len(parts):03d}"))
            parts[-1].write_bytes(chunk)
    path.unlink()
    return parts


def join_parts(folder: Path, into: Path) -> Path:
    """Copy a folder that `split_file` has split, with its weights in one file, and return the copy.

    Raises:
        FileNotFoundError: there are neither weights nor parts of them, or a part is missing.
    """
    if (folder / WEIGHTS).is_file():
        return folder
    parts = sorted(folder.glob(PARTS))
    if not parts or [p.suffix for p in parts] != [f".{i:03d}" for i in range(len(parts))]:
        found = ", ".join(p.name for p in parts) or "none"
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}, and its parts are not complete, found {found}")
    with (into / WEIGHTS).open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    shutil.copy(folder / "config.yaml", into)
    return into
