"""Files of the task `photo`: which photos are named, where each result goes, and which are finished."""

import glob
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ldm.checkpoints.config_files import parse_json
from ldm.data.images import FORMATS, open_image
from ldm.data.photo_encoding import METADATA_KEY
from ldm.data.photo_file import MAX_PIXELS, SUFFIXES
from ldm.data.photo_metadata import recipe_in
from ldm.output_files import OutputError

READABLE = (*SUFFIXES, ".gif", ".jp2", ".tga", ".ppm")  # suffixes of photos in a folder
REQUEST = "request"  # key of the recipe that identifies the command and the photo


class PhotosError(ValueError):
    """No photo is named, or two would have the same output."""


def named_photos(words: Iterable[str]) -> list[Path]:
    """Return the photos that files, folders and glob patterns name, each once.

    Raises:
        PhotosError: a folder or pattern has no photo.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in READABLE)
            if not inside:
                raise PhotosError(f"{word}: the folder has no photo; expected {', '.join(READABLE)}")
        elif not path.exists() and glob.has_magic(word):
            inside = sorted(Path(file) for file in glob.glob(word, recursive=True))
            if not inside:
                raise PhotosError(f"{word}: no file has such a name")
        else:
            inside = [path]
        found.update(dict.fromkeys(inside))
    return list(found)


def is_folder(out: Path, words: Sequence[str]) -> bool:
    """Return whether an output path is a folder: it exists as one, or several photos are named."""
    several = (
        len(words) > 1
        or Path(words[0]).is_dir()
        or (glob.has_magic(words[0]) and not Path(words[0]).exists())
    )
    return several or out.is_dir()


def output_files(photos: Sequence[Path], out: Path, *, folder: bool, suffix: str | None = None) -> list[Path]:
    """Return one output per photo.

    Args:
        photos: the inputs.
        out: a file, or a folder.
        folder: whether `out` is a folder; the names in it are those of the photos.
        suffix: of the outputs in a folder; None for that of the photo if it can be written, else .png.

    Raises:
        PhotosError: two photos would have the same output. OutputError: a file whose suffix is not supported.
    """
    if not folder:
        if suffix is None and out.suffix.lower() not in SUFFIXES:
            raise OutputError(
                f"--out {out}: the suffix must be one of {', '.join(SUFFIXES)}, got {out.suffix!r}"
            )
        return [out]
    files: dict[Path, Path] = {}
    for photo in photos:
        own = photo.suffix if photo.suffix.lower() in SUFFIXES else ".png"
        file = out / f"{photo.stem}{suffix or own}"
        if file in files:
            raise PhotosError(
                f"{photo} and {files[file]} would both become {file}; rename one, or edit it alone"
            )
        files[file] = photo
    return list(files)


def request_digest(*parts: object) -> str:
    """Return a digest of an edit's inputs; files are read, other parts compared by their text."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) and part.is_file() else repr(part).encode()
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()[:16]


def is_finished(file: Path, request: str) -> bool:
    """Return whether a file is the result of the same request."""
    if not file.is_file():
        return False
    try:
        with open_image(file, (*FORMATS, "HEIF"), max_pixels=MAX_PIXELS) as image:
            image.load()  # the text chunk may follow the pixels
            recipe = image.info.get(METADATA_KEY) or recipe_in(image.info.get("xmp"))
        facts = parse_json(recipe or "{}")
    except ValueError:
        return False
    return isinstance(facts, dict) and facts.get(REQUEST) == request
