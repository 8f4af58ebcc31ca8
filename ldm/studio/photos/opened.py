"""OpenedPhoto: a visitor's photo, its faces and all its versions, kept in files."""

from __future__ import annotations

import os
import secrets
import shutil
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.photo_file import PhotoFile
from ldm.parsing.photo_faces import Face
from ldm.pipeline import EditedPhoto, Photo, PhotoEditor
from ldm.pipeline.photo_face import FaceLabels
from ldm.studio.server.upload_folder import UploadFolder

VERSIONS = 12  # kept for undo
MAX_PREVIEW = 24_000_000  # pixels of the JPEG shown in the browser
QUALITY = 92
PIXELS = "pixels.npy"


@dataclass(frozen=True, eq=False)
class Version:
    """The photo after some edits.

    Attributes:
        pixels: uint8 (H, W, 3), mapped from a file.
        preview: the same as a JPEG, for the browser.
        title: what the last edit did.
        recipes: parameters of all edits, as JSON.
        saved: file for the download; None for the photo as it was uploaded.
    """

    pixels: np.ndarray
    preview: Path
    title: str = ""
    recipes: tuple[str, ...] = ()
    saved: Path | None = None


@dataclass(eq=False)
class OpenedPhoto:
    """A photo on the page; mutable.

    Attributes:
        file: metadata of the upload; its pixels are those of the first version.
        name: file name, for the page.
        faces: faces found or placed by hand.
        folder: where new versions are written.
        uploads: the folder that contains it.
        versions: the upload and its edits.
        at: index of the version on display; later ones can be redone.
        labels: label maps by face.
        face: index of the chosen face.
        regions: names of the selected regions.
    """

    file: PhotoFile
    name: str
    faces: list[Face]
    folder: Path
    uploads: UploadFolder
    versions: list[Version] = field(default_factory=list)
    at: int = 0
    labels: dict[int, FaceLabels] = field(default_factory=dict)
    face: int = 0
    regions: tuple[str, ...] = ("hair",)

    @classmethod
    def begin(cls, file: PhotoFile, name: str, faces: list[Face], uploads: UploadFolder) -> OpenedPhoto:
        """Return an opened photo with its first version."""
        opened = cls(file, name, faces, _own_folder(uploads), uploads)
        opened._own()
        opened.versions = [opened._version(file.pixels)]
        opened.file = replace(file, pixels=opened.versions[0].pixels)
        return opened

    def copy(self) -> OpenedPhoto:
        """Return a copy for another visitor; edits of one do not reach the other."""
        copied = replace(
            self,
            folder=_own_folder(self.uploads),
            faces=list(self.faces),
            versions=list(self.versions),
            labels=dict(self.labels),
        )
        copied._own()
        return copied

    @property
    def current(self) -> Version:
        """The version on display."""
        return self.versions[self.at]

    def photo(self, editor: PhotoEditor) -> Photo:
        """Return the version on display as a photo of the pipeline."""
        file = replace(self.file, pixels=self.current.pixels)
        return Photo(editor.pipe, editor.parser, file, tuple(self.faces), face_labels=dict(self.labels))

    def add(self, result: EditedPhoto, title: str) -> None:
        """Add an edited version after the one on display, and write the file for its download."""
        recipes = (*self.current.recipes, result.recipe)
        version = self._version(result.pixels)
        path = version.preview.with_name(f"{Path(self.name).stem}_edited{self.file.suffix}")
        recipe = recipes[0] if len(recipes) == 1 else f"[{', '.join(recipes)}]"
        replace(result, file=self.file, recipe=recipe).save(path)
        self.uploads.make_room()
        self.versions[self.at + 1 :] = [replace(version, title=title, recipes=recipes, saved=path)]
        if len(self.versions) > VERSIONS:
            del self.versions[1]
        self.at = len(self.versions) - 1

    def step(self, by: int) -> None:
        """Undo (-1) or redo (1) an edit; raise ValueError if there is none."""
        if not 0 <= self.at + by < len(self.versions):
            raise ValueError("there is nothing to undo" if by < 0 else "there is nothing to redo")
        self.at += by

    def place(self, face: Face) -> None:
        """Replace the chosen face's crop, which invalidates its label map."""
        self.faces[self.face] = face
        self.labels.pop(self.face, None)

    def edits(self) -> list[str]:
        """Return the titles of the edits up to the version on display."""
        return [version.title for version in self.versions[1 : self.at + 1]]

    def keep(self) -> bool:
        """Mark the files of all versions as used, so that older ones are deleted first; return whether all exist.

        Gradio deletes files after some hours, UploadFolder the oldest ones when it is full.
        """
        try:
            for version in self.versions:
                for file in (version.preview, version.preview.with_name(PIXELS), version.saved):
                    if file is not None:
                        os.utime(file)
        except FileNotFoundError:
            return False
        return True

    def _own(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, True)

    def _version(self, pixels: np.ndarray) -> Version:
        """Write pixels and their preview to files of a new folder."""
        self.uploads.make_room(pixels.nbytes)
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True, mode=0o700)
        np.save(folder / PIXELS, pixels)
        image = Image.fromarray(pixels)
        if image.width * image.height > MAX_PREVIEW:
            scale = (MAX_PREVIEW / (image.width * image.height)) ** 0.5
            image.thumbnail((round(image.width * scale), round(image.height * scale)))
        preview = folder / "preview.jpg"
        image.save(preview, quality=QUALITY, icc_profile=self.file.profile)
        return Version(np.load(folder / PIXELS, mmap_mode="r"), preview)


def _own_folder(uploads: UploadFolder) -> Path:
    return uploads.path / "photos" / secrets.token_hex(8)
