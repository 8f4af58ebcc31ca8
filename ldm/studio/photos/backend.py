"""PhotoBackend: opens and edits the photos of the photo tab with PhotoEditor."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ldm.checkpoints.locate import DEMO
from ldm.data.faces import Face as ReferenceFace
from ldm.data.label_text import labels_from_text
from ldm.data.photo_file import PhotoFile
from ldm.parsing import FaceParser
from ldm.parsing.alignment import Crop
from ldm.parsing.photo_faces import Face, cut_face
from ldm.pipeline import Photo, PhotoEditor, PhotoError, StyleCode
from ldm.pipeline.options import SamplingOptions
from ldm.pipeline.photo import MissingRegionError
from ldm.pipeline.photo_editor import SMALLEST_FACE
from ldm.pipeline.photo_edits import Detail
from ldm.pipeline.photo_face import FaceLabels
from ldm.studio.mask_painter import enlarged
from ldm.studio.models import Models
from ldm.studio.photos.opened import OpenedPhoto
from ldm.studio.photos.widgets import SWATCHES
from ldm.studio.region_names import readable
from ldm.studio.server.upload_folder import UploadFolder

COLOR_NAMES = {code: name for name, code in SWATCHES.items()}
DEFAULT_CROP = 0.35  # half side of the crop where no face was found, relative to the photo's shorter side


@dataclass(frozen=True)
class PhotoEdit:
    """One edit; without a color, face or photo as reference, the style is random.

    Attributes:
        regions: names of the regions.
        color: target color, `#rrggbb`.
        face: a face of the gallery.
        photo: file of another photo.
        strength: 0 (unchanged) to 1.
        detail: "keep" or "replace".
    """

    regions: tuple[str, ...]
    color: str | None = None
    face: ReferenceFace | None = None
    photo: Path | None = None
    strength: float = 1.0
    detail: Detail = "keep"

    def title(self) -> str:
        """Return a short description of the edit for the page."""
        source = (
            (self.color and COLOR_NAMES.get(self.color, self.color))
            or (self.face and f"like {self.face.name}")
            or (self.photo and f"like {self.photo.name}")
            or "random"
        )
        share = "" if self.strength == 1 else f", strength {self.strength:.0%}"
        return f"{', '.join(map(readable, self.regions))}: {source}{share}"


class PhotoBackend:
    """Opens and edits photos with the studio's model and parser."""

    def __init__(self, models: Models, parser: FaceParser, uploads: UploadFolder) -> None:
        self.models, self.parser, self.uploads = models, parser, uploads

    @property
    def editor(self) -> PhotoEditor:
        """Editor with the currently loaded weights."""
        return PhotoEditor(self.models.pipe, self.parser)

    @property
    def transfers_styles(self) -> bool:
        """Whether the model was trained on real faces; the demo model can only recolor photos."""
        return self.models.path.resolve() != DEMO.resolve()

    def open(self, path: Path) -> tuple[OpenedPhoto, str]:
        """Open a photo; return it, and a message if no face was found; the visitor can then place the crop by hand.

        Raises:
            ImageError: the file cannot be read as a photo.
        """
        try:
            photo = self.editor.open(path)
            return self._begin(path, photo.file, list(photo.faces)), ""
        except PhotoError as error:
            file = PhotoFile.open(path)
            height, width = file.pixels.shape[:2]
            crop = Crop(complex(width, height) / 2, DEFAULT_CROP * min(width, height))
            message = str(error).replace(str(path), path.name)
            return self._begin(path, file, [Face(crop)]), f"{message}. Drag the square over the face"
        except ValueError as error:
            raise type(error)(str(error).replace(str(path), path.name)) from error

    def _begin(self, path: Path, file: PhotoFile, faces: list[Face]) -> OpenedPhoto:
        return OpenedPhoto.begin(file, path.name, faces, self.uploads)

    def chosen(self, opened: OpenedPhoto) -> ReferenceFace:
        """Return the selected face and its label map, both at the size of the mask painter."""
        if opened.face not in opened.labels:
            opened.labels[opened.face] = opened.photo(self.editor).label_maps(opened.face)
        labels = enlarged(opened.labels[opened.face].crop)
        size = labels.shape[0], labels.shape[1]
        image = cut_face(Image.fromarray(opened.current.pixels), opened.faces[opened.face].crop, size)
        return ReferenceFace(f"face {opened.face + 1} of {len(opened.faces)}", image, labels)

    def place(self, opened: OpenedPhoto, center: complex, axis: complex) -> None:
        """Set the crop of the selected face, as placed by the visitor.

        Raises:
            ValueError: a crop that is outside the photo, too small or too large.
        """
        height, width = opened.file.pixels.shape[:2]
        inside = 0 <= center.real <= width and 0 <= center.imag <= height
        if not inside or not SMALLEST_FACE <= 2 * abs(axis) <= 3 * max(width, height):
            raise ValueError(
                f"the crop must lie in the photo and be at least {SMALLEST_FACE} pixels wide, got {2 * abs(axis):.0f}"
            )
        opened.place(Face(Crop(center, axis)))

    def paint(self, opened: OpenedPhoto, text: str) -> None:
        """Replace the label map of the selected face with a painted one; raise LabelTextError if it is invalid."""
        known = opened.labels[opened.face]
        size = enlarged(known.crop).shape
        labels = labels_from_text(text, self.parser.label_set, (size[0], size[1]))
        opened.labels[opened.face] = FaceLabels(labels, known.around, painted=True)

    def edit(self, opened: OpenedPhoto, edit: PhotoEdit, how: SamplingOptions) -> None:
        """Add an edited version to a photo; raises the errors of `Photo.edit`."""
        if edit.color is not None and edit.detail != "replace":
            how = {}  # nothing is sampled
        editor = PhotoEditor(self.models.get(self.models.kinds[0]), self.parser)
        photo = opened.photo(editor)
        try:
            result = photo.edit(
                opened.face,
                style=None if edit.color else self._style(editor, photo, opened.face, edit),
                color=edit.color,
                regions=edit.regions,
                strength=edit.strength,
                detail=edit.detail,
                **how,
            )
        except MissingRegionError as error:
            visible = ", ".join(map(readable, error.visible))
            raise PhotoError(
                f"Face {error.face + 1} has no {readable(error.region)}; it has {visible}"
            ) from error
        except ValueError as error:
            raise type(error)(str(error).replace(f"{opened.file.path}: ", "")) from error
        opened.add(result, edit.title())

    def _style(self, editor: PhotoEditor, photo: Photo, face: int, edit: PhotoEdit) -> StyleCode | Photo:
        if edit.face is not None:
            style: StyleCode = editor.pipe.read_style(edit.face.image, edit.face.labels)
            return style
        if edit.photo is not None:
            return editor.open(edit.photo)
        return photo.null_style(face)


class Example:
    """The photo on the first screen, edited in the background while the server starts."""

    REGIONS, COLOR = ("hair",), SWATCHES["auburn"]

    def __init__(self, backend: PhotoBackend, path: Path) -> None:
        """Start editing the photo in a background thread."""
        self._backend, self._path = backend, path
        self._future: Future[OpenedPhoto] = Future()
        self._lock = threading.Lock()
        threading.Thread(target=self._edit, daemon=True).start()

    def _edit(self) -> None:
        try:
            opened, _ = self._backend.open(self._path)
            self._backend.chosen(opened)
            self._backend.edit(opened, PhotoEdit(self.REGIONS, self.COLOR), {})
            self._future.set_result(opened)
        except Exception as error:  # reported to the visitor who asks for it
            self._future.set_exception(error)

    def get(self) -> OpenedPhoto:
        """Return a copy of the edited photo, waiting for it if necessary; edit it again if its files were deleted."""
        with self._lock:
            opened = self._future.result()
            if not opened.keep():
                self._future = Future()
                self._edit()
                opened = self._future.result()
            return opened.copy()
