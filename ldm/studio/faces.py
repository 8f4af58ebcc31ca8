"""Face sources: a folder or synthetic faces, looked up by name; the browser never sends paths."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from PIL import Image
from torch import Tensor

from ldm.data.faces import Face, FaceFiles
from ldm.data.images import ImageError, open_image, read_rgb, to_uint8
from ldm.data.labels import CELEBAMASK_HQ, LabelSet
from ldm.data.synthetic.dataset import SyntheticFaces

THUMBNAIL = 112  # pixels
SYNTHETIC_FACES = 30_000  # number of synthetic faces, generated on demand
SEED = 3  # seed of the synthetic faces, not used by any training config


class Source(Protocol):
    """A collection of named faces."""

    names: Sequence[str]

    def face(self, name: str) -> Face:
        """Load a face."""

    def thumbnail(self, name: str) -> Image.Image:
        """Return a thumbnail."""


class FolderSource:
    """The faces of a folder with images/ and labels/."""

    def __init__(self, folder: Path, label_set: LabelSet, size: tuple[int, int]) -> None:
        """Index the files; raise FolderError if there are none."""
        self._files = FaceFiles.in_folder(folder, label_set, size)
        self._pairs = {pair.name: pair for pair in self._files.pairs}
        self.names: Sequence[str] = list(self._pairs)
        self._cached_thumbnail = lru_cache(512)(self._load_thumbnail)

    def face(self, name: str) -> Face:
        """Load a face; raise ImageError if its files are unusable."""
        return self._files.load(self._pairs[name])

    def thumbnail(self, name: str) -> Image.Image:
        """Return a thumbnail, gray if the file cannot be read."""
        return self._cached_thumbnail(name)

    def _load_thumbnail(self, name: str) -> Image.Image:
        try:
            with open_image(self._pairs[name].image or "") as photo:
                return read_rgb(photo, THUMBNAIL)
        except ImageError:
            return Image.new("RGB", (THUMBNAIL, THUMBNAIL), "gray")


class SyntheticSource:
    """Synthetic faces, rendered from a seed."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Take the (H, W) of the model."""
        self._faces = SyntheticFaces(max(size), SYNTHETIC_FACES, SEED)
        self._small = SyntheticFaces(THUMBNAIL, SYNTHETIC_FACES, SEED)
        self.names: Sequence[str] = [f"{number:06d}" for number in range(SYNTHETIC_FACES)]
        self._cached_thumbnail = lru_cache(512)(self._load_thumbnail)

    def face(self, name: str) -> Face:
        """Render a face."""
        item = self._faces[int(name)]
        return Face(name, item["image"], item["labels"])

    def thumbnail(self, name: str) -> Image.Image:
        """Render a thumbnail."""
        return self._cached_thumbnail(name)

    def _load_thumbnail(self, name: str) -> Image.Image:
        return Image.fromarray(to_uint8(self._small[int(name)]["image"]))


class UnknownFaceError(ValueError):
    """Unknown face name."""


class FaceGallery:
    """All face sources, by their name on the page.

    Attributes:
        sources: at least one.
    """

    PAGE = 24  # thumbnails per page

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def search(self, source: str, text: str | None) -> list[str]:
        """Return the names of a source that contain `text`; all for None, which an unrendered search box sends."""
        query = (text or "").strip().lower()
        return [name for name in self._source(source).names if query in name.lower()]

    def thumbnails(self, source: str, names: Sequence[str]) -> list[tuple[Image.Image, str]]:
        """Return thumbnails with their names."""
        return [(self._source(source).thumbnail(name), name) for name in names]

    def face(self, source: str, name: str) -> Face:
        """Load a face.

        Raises:
            UnknownFaceError: no such source or name. ImageError: its files cannot be used.
        """
        found = self._source(source)
        if name not in found.names:
            raise UnknownFaceError(f"no face {name[:40]!r} in {source}; search for part of a name")
        return found.face(name)

    def images(self) -> Iterator[Tensor]:
        """Yield the readable photos of all sources, (3, H, W) in [-1, 1]."""
        for source in self.sources.values():
            for name in source.names:
                try:
                    yield source.face(name).image
                except ImageError:
                    continue

    def _source(self, source: str) -> Source:
        if source not in self.sources:
            raise UnknownFaceError(f"unknown face source {source!r}; available: {', '.join(self.sources)}")
        return self.sources[source]


def face_gallery(
    dataset: Path | None, examples: Mapping[str, Path], label_set: LabelSet, size: tuple[int, int]
) -> FaceGallery:
    """Return the faces of the dataset, or else the folders of examples by name, and synthetic faces.

    Raises:
        FolderError: the folder is not a dataset.
    """
    if dataset is not None:
        return FaceGallery({"Dataset": FolderSource(dataset, label_set, size)})
    sources: dict[str, Source] = {}
    if label_set == CELEBAMASK_HQ:
        for name, folder in examples.items():
            if (folder / "images").is_dir():
                sources[name] = FolderSource(folder, label_set, size)
    if label_set == CELEBAMASK_HQ and size[0] == size[1]:
        sources["Synthetic series"] = SyntheticSource(size)
    if not sources:
        raise ValueError(
            f"there are no example faces with the regions of {label_set.name}: set --dataset FOLDER"
        )
    return FaceGallery(sources)
