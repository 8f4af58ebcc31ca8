"""Folders of pictures and label maps: find the files, pair them by name, check them, load them."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
_SHOWN = 5  # file names in an error


class FolderError(ValueError):
    """A dataset's folder lacks files or has the wrong ones; the message says which and what to do."""


@dataclass(frozen=True)
class Pair:
    """A picture and its label map; a file that the dataset does not load may be None."""

    name: str
    image: Path | None
    labels: Path | None


def files_by_name(
    folder: Path, suffixes: tuple[str, ...], ending: str = "", recursive: bool = False
) -> dict[str, Path]:
    """Find the files of a folder: name without `ending` and suffix -> path, ordered by the numbers in names.

    Args:
        folder: Where to look.
        suffixes: Suffixes to take, in lower case, such as (".png",).
        ending: What the names end with before the suffix; files without it are passed over, it is cut off.
        recursive: Look into subfolders too.

    Raises:
        FolderError: no such folder, no such file in it, a file of no bytes, or two files of the same name.
    """
    if not folder.is_dir():
        raise FolderError(f"there is no folder {folder}{_folders_nearby(folder)}")
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
        wanted = " or ".join(f"*{ending}{suffix}" for suffix in suffixes)
        raise FolderError(
            f"{folder} has no file {wanted}" + (f"; it has {_listed(others, 'other file')}" if others else "")
        )
    return dict(sorted(found.items(), key=lambda item: numeric_order(item[0])))


def pair_by_name(
    images: Mapping[str, Path] | None, labels: Mapping[str, Path] | None, images_may_lack_labels: bool = False
) -> list[Pair]:
    """Pair pictures and label maps of the same name, in the order of the label maps.

    Args:
        images: Name -> file, or None if the dataset loads only label maps.
        labels: Name -> file, or None if the dataset loads only pictures.
        images_may_lack_labels: Leave out pictures without a label map, instead of raising.

    Raises:
        FolderError: a file has no partner.
    """
    if images is None or labels is None:
        return [
            Pair(name, (images or {}).get(name), (labels or {}).get(name)) for name in images or labels or {}
        ]
    lonely_images = (
        [] if images_may_lack_labels else [path for name, path in images.items() if name not in labels]
    )
    lonely_labels = [path for name, path in labels.items() if name not in images]
    for lonely, what, lacking in (
        (lonely_images, "image", "a label map"),
        (lonely_labels, "label map", "an image"),
    ):
        if lonely:
            raise FolderError(
                f"{_listed([path.name for path in lonely], what)} in {lonely[0].parent} without {lacking} of the "
                f"same name; add what is missing, or remove these files"
            )
    return [Pair(name, images[name], path) for name, path in labels.items()]


def read_names(path: Path) -> list[str]:
    """Read a list of file names, one a line, suffixes cut off; empty lines and lines after `#` do not count.

    Raises:
        FolderError: no such file, no name in it, or a name twice.
    """
    if not path.is_file():
        raise FolderError(f"there is no file {path}; wanted a text file with one name a line")
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    names = [re.sub(r"\.(jpe?g|png)$", "", line, flags=re.IGNORECASE) for line in lines if line]
    if not names:
        raise FolderError(f"{path} holds no name; wanted one a line")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise FolderError(f"{path} holds {_listed(twice, 'name')} more than once")
    return names


def choose(files: Mapping[str, Path], names: Iterable[str], why: str) -> dict[str, Path]:
    """Return the files of `names`, in that order.

    Raises:
        FolderError: a name has no file; `why` says who asked for it.
    """
    wanted = list(names)
    missing = [name for name in wanted if name not in files]
    if missing:
        folder = next(iter(files.values())).parent
        raise FolderError(f"{why} asks for {_listed(missing, 'file')} that {folder} does not have")
    return {name: files[name] for name in wanted}


def numeric_order(name: str) -> list[str | int]:
    """Return the key that sorts names by the numbers in them: 2 before 10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _scan(folder: Path, recursive: bool) -> Iterable[os.DirEntry[str]]:
    """Yield the files of a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield entry
            elif recursive and entry.is_dir():
                yield from _scan(Path(entry.path), recursive)


def _folders_nearby(folder: Path) -> str:
    """Say which folders there are where `folder` was expected."""
    parent = folder.parent
    if not parent.is_dir():
        return f", nor {parent}; check the path"
    with os.scandir(parent) as entries:
        beside = sorted(entry.name for entry in entries if entry.is_dir())
    return f"; {parent} has {_listed(beside, 'folder')}" if beside else f"; {parent} has no folders at all"


def _listed(names: Sequence[str], what: str) -> str:
    """Return e.g. `7 files (1.png, 2.png, 3.png, 4.png, 5.png ...)`."""
    more = " ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({', '.join(names[:_SHOWN])}{more})"
