"""Folders of images and label maps: find files, pair them by name, select them."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif")
MAX_LISTED = 5  # file names in an error message


class FolderError(ValueError):
    """Missing or unexpected files in the folder of a dataset; the message names them and says what to do."""


@dataclass(frozen=True)
class Pair:
    """Paths of an image and its label map; None for a file that is not loaded."""

    name: str
    image: Path | None
    labels: Path | None


def files_by_name(
    folder: Path, suffixes: tuple[str, ...], ending: str = "", recursive: bool = False
) -> dict[str, Path]:
    """Find the files of a folder: name without `ending` and suffix -> path, in numeric order of the names.

    Args:
        folder: The folder.
        suffixes: Suffixes of the files, in lower case, such as (".png",).
        ending: End of the file names before the suffix; files without it are ignored.
        recursive: Search subfolders too.

    Raises:
        FolderError: missing folder, no matching file, an empty file, or two files of the same name.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} does not exist{_describe_parent(folder)}")
    found: dict[str, Path] = {}
    empty: list[str] = []
    others: list[str] = []
    for entry in _scan(folder, recursive):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() not in suffixes or not stem.endswith(ending):
            others.append(entry.name)
            continue
        name = stem[: len(stem) - len(ending)]
        if name in found:
            raise FolderError(f"{found[name]} and {entry.path} have the same name; keep one of them")
        found[name] = Path(entry.path)
        if entry.stat().st_size == 0:
            empty.append(entry.name)
    if empty:
        raise FolderError(f"{folder} has {_listed(empty, 'file')} of 0 bytes; copy or download again")
    if not found:
        patterns = " or ".join(f"*{ending}{suffix}" for suffix in suffixes)
        raise FolderError(
            f"{folder} has no file {patterns}"
            + (f"; it has {_listed(others, 'other file')}" if others else "")
        )
    return dict(sorted(found.items(), key=lambda item: numeric_order(item[0])))


def pair_by_name(
    images: Mapping[str, Path] | None, labels: Mapping[str, Path] | None, images_may_lack_labels: bool = False
) -> list[Pair]:
    """Pair images and label maps of the same name, in the order of the label maps.

    Args:
        images: Name -> file, or None if only label maps are loaded.
        labels: Name -> file, or None if only images are loaded.
        images_may_lack_labels: Leave out images without a label map instead of raising.

    Raises:
        FolderError: an image without label map, or vice versa.
    """
    if images is None or labels is None:
        return [
            Pair(name, (images or {}).get(name), (labels or {}).get(name)) for name in images or labels or {}
        ]
    unpaired_images = (
        [] if images_may_lack_labels else [path for name, path in images.items() if name not in labels]
    )
    unpaired_labels = [path for name, path in labels.items() if name not in images]
    for unpaired, kind, lacking in (
        (unpaired_images, "image", "a label map"),
        (unpaired_labels, "label map", "an image"),
    ):
        if unpaired:
            raise FolderError(
                f"{_listed([path.name for path in unpaired], kind)} in {unpaired[0].parent} without {lacking} of the "
                f"same name; add the missing files, or remove these"
            )
    return [Pair(name, images[name], path) for name, path in labels.items()]


def read_names(path: Path) -> list[str]:
    """Read a list of names, one per line; image suffixes, empty lines and comments after `#` are ignored.

    Raises:
        FolderError: missing file, no name, or a repeated name.
    """
    if not path.is_file():
        raise FolderError(f"{path} does not exist; expected a text file with one name per line")
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    names = [re.sub(r"\.(jpe?g|png)$", "", line, flags=re.IGNORECASE) for line in lines if line]
    if not names:
        raise FolderError(f"{path} has no names; expected one per line")
    repeated = (
        sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    )
    if repeated:
        raise FolderError(f"{path} lists {_listed(repeated, 'name')} more than once")
    return names


def select(files: Mapping[str, Path], names: Sequence[str], source: str) -> dict[str, Path]:
    """Return the files of `names`, in that order; `source` is the file that lists the names, for the error.

    Raises:
        FolderError: a name without a file.
    """
    missing = [name for name in names if name not in files]
    if missing:
        folder = next(iter(files.values())).parent
        raise FolderError(f"{source} lists {_listed(missing, 'file')} that {folder} does not have")
    return {name: files[name] for name in names}


def numeric_order(name: str) -> list[str | int]:
    """Return a sort key that orders names by the numbers in them: 2 before 10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _scan(folder: Path, recursive: bool) -> Iterable[os.DirEntry[str]]:
    """Yield the files of a folder that are not hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield entry
            elif recursive and entry.is_dir():
                yield from _scan(Path(entry.path), recursive)


def _describe_parent(folder: Path) -> str:
    """Return which folders are beside a missing folder, for an error message."""
    parent = folder.parent
    if not parent.is_dir():
        return f", nor does {parent}; check the path"
    with os.scandir(parent) as entries:
        beside = sorted(entry.name for entry in entries if entry.is_dir())
    return f"; {parent} has {_listed(beside, 'folder')}" if beside else f"; {parent} has no folders"


def _listed(names: Sequence[str], kind: str) -> str:
    """Return e.g. `7 files (1.png, 2.png, 3.png, 4.png, 5.png ...)`."""
    more = " ..." if len(names) > MAX_LISTED else ""
    return f"{len(names)} {kind}{'' if len(names) == 1 else 's'} ({', '.join(names[:MAX_LISTED])}{more})"
