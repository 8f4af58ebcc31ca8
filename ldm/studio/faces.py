"""Where faces come from: a folder, or drawn from a seed. Found by name; no path ever comes from the browser."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from PIL import Image

from ldm.data.faces import Face, FaceFiles
from ldm.data.images import ImageError, open_image, read_rgb, to_uint8
from ldm.data.labels import CELEBAMASK_HQ, LabelSet
from ldm.data.synthetic.dataset import SyntheticFaces

THUMBNAIL = 112  # pixels
GENERATED = 30_000  # faces to choose among; each is drawn when it is asked for
SEED = 3  # of the generated faces: a series that no config trains on


class Source(Protocol):
    """Faces that have names."""

    names: Sequence[str]

    def face(self, name: str) -> Face:
        """Load a face."""

    def thumbnail(self, name: str) -> Image.Image:
        """Return a small picture of it."""


class FolderSource:
    """The faces of a folder with images/ and labels/."""

    def __init__(self, folder: Path, label_set: LabelSet, size: tuple[int, int]) -> None:
        """Find the files; raises FolderError where there are none."""
        self._files = FaceFiles.in_folder(folder, label_set, size)
        self._pairs = {pair.name: pair for pair in self._files.pairs}
        self.names: Sequence[str] = list(self._pairs)
        self._drawn = lru_cache(512)(self._draw)

    def face(self, name: str) -> Face:
        """Load a face; ImageError where its files cannot be used."""
        return self._files.load(self._pairs[name])

    def thumbnail(self, name: str) -> Image.Image:
        """Return a small picture of it; a grey one where the file cannot be read."""
        return self._drawn(name)

    def _draw(self, name: str) -> Image.Image:
        try:
            with open_image(self._pairs[name].image or "") as photo:
                return read_rgb(photo, THUMBNAIL)
        except ImageError:
            return Image.new("RGB", (THUMBNAIL, THUMBNAIL), "grey")


class GeneratedSource:
    """Faces that are drawn from a seed, in any number."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Take the model's (H, W)."""
        self._faces = SyntheticFaces(max(size), GENERATED, SEED)
        self._small = SyntheticFaces(THUMBNAIL, GENERATED, SEED)
        self.names: Sequence[str] = [f"{number:06d}" for number in range(GENERATED)]
        self._drawn = lru_cache(512)(self._draw)

    def face(self, name: str) -> Face:
        """Draw a face."""
        drawn = self._faces[int(name)]
        return Face(name, drawn["image"], drawn["labels"])

    def thumbnail(self, name: str) -> Image.Image:
        """Draw it small."""
        return self._drawn(name)

    def _draw(self, name: str) -> Image.Image:
        return Image.fromarray(to_uint8(self._small[int(name)]["image"]))


class UnknownFaceError(ValueError):
    """There is no face of that name."""


class Shelf:
    """All sources, by the name that the page shows.

    Attributes:
        sources: at least one.
    """

    PAGE = 24  # thumbnails that are shown at once

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def search(self, source: str, text: str) -> list[str]:
        """Return the names in which `text` occurs; of any source that the page knows."""
        wanted = text.strip().lower()
        return [name for name in self._source(source).names if wanted in name.lower()]

    def thumbnails(self, source: str, names: Sequence[str]) -> list[tuple[Image.Image, str]]:
        """Return small pictures with their names."""
        return [(self._source(source).thumbnail(name), name) for name in names]

    def face(self, source: str, name: str) -> Face:
        """Load a face.

        Raises:
            UnknownFaceError: no such source or name. ImageError: its files cannot be used.
        """
        found = self._source(source)
        if name not in found.names:
            raise UnknownFaceError(f"there is no face {name[:40]!r} in {source}; search for a part of a name")
        return found.face(name)

    def _source(self, source: str) -> Source:
        if source not in self.sources:
            raise UnknownFaceError(
                f"there are no faces called {source!r}; there are {', '.join(self.sources)}"
            )
        return self.sources[source]


def shelf(dataset: Path | None, examples: Path | None, label_set: LabelSet, size: tuple[int, int]) -> Shelf:
    """Return the dataset's faces where there is one, else the examples and generated ones.

    Raises:
        FolderError: the dataset is none.
    """
    if dataset is not None:
        return Shelf({"Dataset": FolderSource(dataset, label_set, size)})
    sources: dict[str, Source] = {}
    if examples is not None and (examples / "images").is_dir() and label_set == CELEBAMASK_HQ:
        sources["Examples"] = FolderSource(examples, label_set, size)
    if label_set == CELEBAMASK_HQ and size[0] == size[1]:
        sources["Generated"] = GeneratedSource(size)
    if not sources:
        raise ValueError(
            f"the model knows {label_set.name}, for which there are no examples: name --dataset FOLDER"
        )
    return Shelf(sources)
